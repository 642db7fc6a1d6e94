"""The paper's tables under pamctl's metrics: which diagonal BWT uses, what columns and rows really are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.evaluation.metrics import (
    accuracy_when_merged,
    backward_transfer,
    final_accuracy,
    identity_gap,
)
from pamctl.evaluation.report import report_of
from pamctl.evaluation.results import Result, append_results
from pamctl.evaluation.tables import summary_table

PAPER = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "paper_tables" / "tables.json").read_text(encoding="utf-8")
)
TABLES: dict[str, Any] = PAPER["tables"]
NEVER_MERGE = ("Fine-tune", "LWF", "I-LoRA", "O-LoRA", "MoELoRA")

Row = dict[str, Any]


def row_of(table: str, **chosen: object) -> Row:
    """The one row of a table whose cells are these."""
    (row,) = (row for row in TABLES[table]["rows"] if chosen.items() <= row.items())
    return dict(row)


def implied(table: str, row: Row) -> float:
    """A_m of a matrix that has the ACC and BWT of a row: every such matrix has the same."""
    count, acc, bwt = TABLES[table]["tasks"], row["ACC"], row["BWT"]
    after = np.full((count, count), acc)
    np.fill_diagonal(after[:-1], acc - bwt)
    assert final_accuracy(after) == pytest.approx(acc, abs=1e-9)
    assert backward_transfer(after) == pytest.approx(bwt, abs=1e-9)
    assert identity_gap(after) == pytest.approx(0, abs=1e-9)
    merged = accuracy_when_merged(after)
    assert merged is not None
    return merged


def printed_diagonal(table: str, row: Row) -> float | None:
    """A_m as printed; A_t where nothing is merged, and in table 6, which prints A_m by that name."""
    if "A_m" in row:
        return float(row["A_m"])
    return float(row["A_t"]) if table == "6" or row["method"] in NEVER_MERGE else None


def gaps() -> dict[tuple[object, ...], float]:
    """Implied minus printed A_m of every row that prints it, a row that a second table repeats once."""
    found: dict[tuple[object, ...], float] = {}
    for table, content in TABLES.items():
        for row in content["rows"]:
            diagonal = printed_diagonal(table, row) if "BWT" in row else None
            if diagonal is not None and (table, row.get("reinit")) != ("reinit", "global"):
                setting = next((row[key] for key in ("align_every", "top_p", "reinit") if key in row), None)
                found[table, row["method"], setting] = implied(table, row) - diagonal
    return found


def test_the_identity_holds_on_all_rows_but_one() -> None:
    found = gaps()
    off = {row: gap for row, gap in found.items() if abs(gap) > 0.02}
    assert len(found) == 21
    assert list(off) == [("2", "Average", None)]


def test_the_exception_is_average_in_table_2() -> None:
    average = row_of("2", method="Average")
    assert average["A_m"] == 65.95
    assert implied("2", average) == pytest.approx(66.08, abs=0.005)


def test_bwt_uses_the_diagonal_after_merging() -> None:
    """With the one before merging, every row of table 2 would be off by ten points or so."""
    for row in TABLES["2"]["rows"]:
        assert abs(implied("2", row) - row["A_t"]) > 9


def test_magmax_merges_the_chain_of_sequential_fine_tuning() -> None:
    magmax, tuned = row_of("1", method="MagMax"), row_of("1", method="Fine-tune")
    assert (magmax["A_t"], magmax["A_t_std"]) == (tuned["A_t"], tuned["A_t_std"]) == (76.29, 0.18)
    same = [row["method"] for row in TABLES["1"]["rows"] if row.get("A_t") == magmax["A_t"]]
    assert same == ["Fine-tune", "MagMax"]
    assert implied("1", magmax) == pytest.approx(64.64, abs=0.005)


def test_table_6_prints_a_m_in_its_column_of_a_t() -> None:
    usual, ablated = row_of("6", align_every=100), row_of("top p", top_p=50)
    assert (usual["ACC"], usual["BWT"]) == (ablated["ACC"], ablated["BWT"])
    assert usual["A_t"] == ablated["A_m"] == 65.97
    assert ablated["A_t"] == 76.33
    for row in TABLES["6"]["rows"]:
        assert implied("6", row) == pytest.approx(row["A_t"], abs=0.02)


def test_ablations_are_of_one_order() -> None:
    """Their PAM has no deviation, and is not the PAM of the main table."""
    for row in (*TABLES["6"]["rows"], *TABLES["top p"]["rows"]):
        assert not [key for key in row if key.endswith("_std")]
    assert row_of("top p", top_p=50)["ACC"] != row_of("1", method="PAM")["ACC"]


def test_weights_are_put_back_to_the_global_ones_in_the_main_results() -> None:
    repeated = row_of("reinit", reinit="global")
    assert repeated.pop("reinit") == "global"
    assert repeated == row_of("2", method="PAM")
    assert row_of("1", method="PAM").items() <= repeated.items()


@pytest.mark.parametrize(
    ("table", "method", "a_m"),
    [
        ("3 extended", "PAM", 63.12),
        ("3 extended", "LWF+PAM", 56.10),
        ("3 video", "PAM", 47.36),
        ("3 video", "LWF+PAM", 46.43),
    ],
)
def test_a_m_that_table_3_does_not_print(table: str, method: str, a_m: float) -> None:
    assert implied(table, row_of(table, method=method)) == pytest.approx(a_m, abs=0.005)


def test_a_m_that_table_5_does_not_print() -> None:
    assert implied("5", row_of("5", method="PAM")) == pytest.approx(69.86, abs=0.005)


def test_the_four_added_tasks_score_as_if_rsvqa_were_a_third() -> None:
    """The sum over AI2D, AOKVQA-MC, OKVQA and RSVQA-lr, from the means over ten tasks and over six."""
    coin, extended = (row_of(table, method="Independent")["ACC"] for table in ("1", "3 extended"))
    added = 10 * extended - 6 * coin
    reference = PAPER["paligemma_references"]["scores"]
    three = sum(reference[task] for task in ("AI2D", "AOKVQA-MC", "OKVQA"))
    assert added == pytest.approx(239.5, abs=0.05)
    assert three + reference["RSVQA-lr"] == pytest.approx(304.7, abs=0.05)
    assert three + reference["RSVQA-lr"] / 3 == pytest.approx(242.9, abs=0.05)


def test_independent_adapters_score_above_the_mean_of_the_references() -> None:
    coin = ("ScienceQA", "TextVQA", "GQA", "VizWiz", "VQAv2", "OCR-VQA")
    mean = np.mean([PAPER["paligemma_references"]["scores"][task] for task in coin])
    assert mean == pytest.approx(74.4, abs=0.05)
    assert row_of("1", method="Independent")["ACC"] > mean + 2


OURS = {
    "Fine-tune": "finetune",
    "LWF": "lwf",
    "I-LoRA": "ilora",
    "O-LoRA": "olora",
    "MoELoRA": "moelora",
    "MagMax": "magmax",
    "Average": "average",
    "PAM": "pam",
    "TIES": "ties",
    "TALL": "tall",
    "TALL+PAM": "tall+pam",
    "LWF+PAM": "lwf+pam",
}
ZERO_SHOT = 20.0
SPREAD = (1.5**0.5, 0.0, -(1.5**0.5))
"""Three values with mean 0 and population deviation 1: what an order adds, in deviations."""


def sequences_of(table: str, row: Row) -> Iterator[Result]:
    """Results in three orders, or one without deviations, that have the metrics of a row."""
    count = TABLES[table]["tasks"]
    merges = row["method"] not in NEVER_MERGE
    for number, deviations in enumerate(SPREAD if "ACC_std" in row else SPREAD[1:2]):
        acc, bwt, fwt, a_t = (
            row[metric] + deviations * row.get(f"{metric}_std", 0.0)
            for metric in ("ACC", "BWT", "FWT", "A_t")
        )
        tasks = tuple(f"task {(number + i) % count}" for i in range(count))
        after = np.full((count, count), acc)
        np.fill_diagonal(after[:-1], acc - bwt)
        np.fill_diagonal(after[:, 1:], ZERO_SHOT + fwt)
        place: Any = {"method": OURS[row["method"]], "order": f"order {number + 1}", "seed": 0}
        for t in range(count):
            learned = tasks[: t + 1]
            stage: Any = "merged" if merges else "trained"
            if merges:
                yield Result(tasks[t], "trained", learned, "exact", a_t, 1, **place)
            for task, score in zip(tasks, after[t], strict=True):
                yield Result(task, stage, learned, "exact", float(score), 1, **place)


@pytest.mark.parametrize("table", ["1", "2", "3 extended", "3 video"])
def test_a_report_of_such_sequences_prints_the_papers_rows(table: str, tmp_path: Path) -> None:
    """ACC, BWT and FWT, and A_t where it is not A_m, to the letter; A_m follows from ACC and BWT."""
    rows = [row for row in TABLES[table]["rows"] if "BWT" in row]
    file = tmp_path / "results.jsonl"
    names = [f"task {number}" for number in range(TABLES[table]["tasks"])]
    append_results(file, [Result(name, "base", (), "exact", ZERO_SHOT, 1) for name in names])
    for row in rows:
        append_results(file, list(sequences_of(table, row)))
    report = report_of([file])
    (comparison,) = report.comparisons
    assert report.checked == (len(comparison.matrices),) * 2
    header, printed = summary_table(comparison)
    assert header == ("method", "ACC", "BWT", "FWT (lopez-paz)", "A_t", "A_m", "n")
    cells = {line[0]: line[1:] for line in printed}
    for row in rows:
        acc, bwt, fwt, a_t, a_m, n = cells[OURS[row["method"]]]
        assert [acc, bwt, fwt] == [told(row, metric) for metric in ("ACC", "BWT", "FWT")]
        assert n == ("3" if "ACC_std" in row else "1")
        merged = float(a_m.partition(" ")[0])
        assert merged == pytest.approx(implied(table, row), abs=0.006)
        if row["method"] in NEVER_MERGE:
            assert a_t == a_m
            assert merged == pytest.approx(row["A_t"], abs=0.02)
        else:
            assert a_t == told(row, "A_t")
        if "A_m" in row and row["method"] != "Average":
            assert merged == pytest.approx(row["A_m"], abs=0.02)


def told(row: Row, metric: str) -> str:
    """A cell as the paper's tables have it: two decimals, and the deviation behind ± where there is one."""
    deviation = f" ± {row[f'{metric}_std']:.2f}" if f"{metric}_std" in row else ""
    return f"{row[metric]:.2f}{deviation}"
