"""The report folder: its tables, numbers and figures, the same bytes for the same results."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.evaluation.figures import Drawn
from pamctl.evaluation.markdown import markdown_of
from pamctl.evaluation.metrics import FWT_VARIANTS
from pamctl.evaluation.metrics_json import metrics_json
from pamctl.evaluation.report import Report, report_of, write_report
from pamctl.evaluation.results import Result, append_results
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.training.methods import METHODS

ROOT = Path(__file__).parents[2]
TASKS = ("tiny-a", "tiny-b", "tiny-c")


def run_of(method: str, tasks: tuple[str, ...], seed: int) -> list[Result]:
    """A whole sequence whose scores are all different."""
    draws = np.random.default_rng([len(method), seed, TASKS.index(tasks[0])])
    states = [("trained", 1)] + [(stage, t) for t in (2, 3) for stage in ("trained", "merged")]
    return [
        Result(task, stage, tasks[:t], "exact", float(draws.uniform(0, 100)), 4, method=method, seed=seed)  # type: ignore[arg-type]
        for stage, t in states
        for task in tasks
    ]


def text_of(report: Report) -> str:
    """report.md, without drawing its figures."""
    return "\n".join(markdown_of(report, Drawn(tuple(() for _ in report.comparisons), ()))) + "\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("results") / "results.jsonl"
    append_results(file, [Result(task, "base", (), "exact", 7.0, 4) for task in TASKS])
    for method in ("finetune", "pam"):
        for tasks in (TASKS, TASKS[::-1]):
            append_results(file, run_of(method, tasks, seed=0))
    return file


@pytest.fixture(scope="module")
def folder(results: Path) -> Path:
    write_report([results], results.parent / "report")
    return results.parent / "report"


def test_the_same_results_give_the_same_bytes(results: Path, folder: Path, tmp_path: Path) -> None:
    write_report([results], tmp_path / "again")
    first, again = (
        {file.name: file.read_bytes() for file in path.iterdir()} for path in (folder, tmp_path / "again")
    )
    figures = {
        f"{name}.{kind}"
        for name in ("forgetting", "accuracy-by-order", "stability-plasticity", "matrices")
        for kind in ("png", "svg")
    }
    assert set(first) == {"index.html", "report.md", "metrics.json", "matrix.csv"} | figures
    assert first == again


def test_numbers_are_whole_and_consistent(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["schema"] == "pamctl.metrics/1"
    [comparison] = metrics["comparisons"]
    assert comparison["zero_shot"] == dict.fromkeys(TASKS, 7.0)
    assert len(comparison["sequences"]) == 4
    with (folder / "matrix.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (3 + 3 + 9)
    for sequence in comparison["sequences"]:
        assert sequence["missing"] == []
        assert sequence["identity_gap"] < 1e-9
        assert sequence["metrics"]["ACC"] == pytest.approx(np.mean(sequence["after"][-1]))
        last = [
            float(row["score"])
            for row in rows
            if (row["method"], row["order"], row["state"], row["learned"])
            == (sequence["method"], sequence["order"], "after", "3")
        ]
        assert last == sequence["after"][-1]
    [pam] = [row for row in comparison["systems"] if row["system"] == "pam"]
    assert pam["metrics"]["ACC"]["n"] == 2


def test_figures_are_images_that_are_not_empty(folder: Path) -> None:
    for file in folder.glob("*.png"):
        image = Image.open(file)
        assert min(image.size) > 300
        assert len(image.convert("L").getcolors() or []) > 20
        assert not {"Software", "Creation Time"} & image.info.keys()


def test_the_text_shows_every_figure_and_table(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    for figure in folder.glob("*.png"):
        assert f"]({figure.name})" in text
    assert "| pam | " in text
    assert "±" in text
    assert "pam - finetune | ACC" in text
    assert "Missing cells" not in text
    assert "tiny-a → tiny-b → tiny-c" in text


def test_missing_cells_are_na_with_commands(results: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.jsonl"
    lines = results.read_text().splitlines()
    part.write_text("\n".join(line for line in lines if '"base"' not in line.split(", ")[2]) + '\n{"torn')
    report = report_of([part])
    text = text_of(report)
    assert "| zero-shot | n/a |" in text
    assert "pamctl eval --task tiny-a --task tiny-b --task tiny-c --results" in text
    assert "left torn" in report.notes[0]
    assert metrics_json(report)["notes"] == list(report.notes)


def test_every_table_names_the_variant_of_fwt_that_it_shows(results: Path) -> None:
    shown = set()
    for name in FWT_VARIANTS:
        report = report_of([results], fwt=name, baseline=[results])
        text = text_of(report)
        assert f"| method | ACC | BWT | FWT ({name}) | A_t | A_m | n |" in text
        assert not re.search(r"\| FWT (?!\()", text)
        assert f"- **FWT**: {name}: {FWT_VARIANTS[name]}." in text
        numbers = metrics_json(report)
        assert numbers["fwt"] == {"shown": name, "variants": dict(FWT_VARIANTS)}
        for row in numbers["comparisons"][0]["systems"]:
            assert row["metrics"]["FWT"] == row["fwt"][name]
            shown.add((row["system"], row["fwt"][name]["mean"]))
        for row in numbers["comparisons"][0]["sequences"]:
            assert row["metrics"]["FWT"] == row["fwt"][name]
    assert len(shown) == 2 * 3
    with pytest.raises(UsageRefusal, match="no FWT is called 'mine'"):
        report_of([results], fwt="mine")


def test_columns_and_deviations_are_laid_out_as_in_the_papers_tables(results: Path) -> None:
    """Method, ACC, BWT, FWT, A_t, and A_m as in table 2; two decimals and ±; zero-shot has -."""
    report = report_of([results])
    (comparison,) = report.comparisons
    lines = text_of(report).splitlines()
    header = lines.index("| method | ACC | BWT | FWT (lopez-paz) | A_t | A_m | n |")
    zero_shot, finetune, pam = (line.strip("| ").split(" | ") for line in lines[header + 2 : header + 5])
    assert zero_shot[:2] == ["zero-shot", "7.00"]
    assert set(zero_shot[2:6]) == {"-"}
    for row, system in ((finetune, "finetune"), (pam, "pam")):
        for cell, metric in zip(row[1:6], ("ACC", "BWT", "FWT", "A_t", "A_m"), strict=True):
            spread = comparison.spread(system, metric)
            assert spread is not None
            assert cell == f"{spread.mean:.2f} ± {spread.std:.2f}"
    assert "± is the standard deviation over the n sequences (ddof 0)" in text_of(report)


def test_a_baseline_is_compared_in_text_and_numbers(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    changed = [line for line in lines if line["method"] == "pam" and line["stage"] == "merged"][-1]
    changed["score"] = 0.0
    other.write_text("".join(json.dumps(line) + "\n" for line in lines if line["method"] != "finetune"))
    report = report_of([results], baseline=[other])
    [comparison] = metrics_json(report)["comparisons"]
    changes = comparison["baseline"]
    [cell] = changes["cells"]["largest"]
    assert (cell["system"], cell["task"], cell["before"]) == ("pam", changed["task"], 0.0)
    assert cell["difference"] == cell["now"]
    [acc] = [row for row in changes["metrics"] if row["metric"] == "ACC"]
    assert (acc["system"], acc["n"]) == ("pam", 2)
    assert acc["mean"] == pytest.approx(cell["now"] / 3 / 2)
    assert (changes["only_now"], changes["only_baseline"]) == (["finetune"], [])
    text = text_of(report)
    assert f"| pam | {acc['mean']:+.2f} ± {acc['std']:.2f} |" in text
    assert f"{cell['now']:.2f} | {cell['now']:+.2f} |" in text
    assert "Only in this run: finetune." in text
    assert metrics_json(report_of([results]))["comparisons"][0]["baseline"] is None


def test_a_baseline_over_other_tasks_is_noted(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    append_results(other, [Result("t", "trained", ("t",), "exact", 25.0, 4, method="x")])
    report = report_of([results], baseline=[other])
    assert "the baseline has no sequences of tiny-a, tiny-b, tiny-c" in report.notes


@pytest.fixture(scope="module")
def with_bounds(results: Path) -> Path:
    """The results, with average, and methods that learn no sequence."""
    file = results.parent / "with-bounds.jsonl"
    file.write_bytes(results.read_bytes())
    for tasks in (TASKS, TASKS[::-1]):
        append_results(file, run_of("average", tasks, seed=0))
    apart = [
        Result(task, "trained", (task,), "exact", 90.0, 4, method="independent", seed=0) for task in TASKS
    ]
    once = [Result(task, "trained", TASKS, "exact", 80.0, 4, method="multitask", seed=0) for task in TASKS]
    append_results(file, [*apart, *once])
    return file


def test_methods_without_a_sequence_stand_in_the_same_tables(with_bounds: Path, tmp_path: Path) -> None:
    write_report([with_bounds], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| independent | 90.00 | - | - | 90.00 | 90.00 | 1 |" in text
    assert "| multitask | 80.00 | - | - | - | - | 1 |" in text
    assert "| independent | 90.00 | 90.00 |\n" in text
    assert "Missing cells" not in text
    with (tmp_path / "report" / "matrix.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] in ("independent", "multitask")]
    assert len(rows) == 2 * (3 + 3)
    assert all(row["score"] for row in rows)
    forgetting = (tmp_path / "report" / "forgetting.svg").read_text()
    assert "<!-- average -->" in forgetting
    assert "<!-- independent -->" not in forgetting


def test_the_identity_is_counted(with_bounds: Path) -> None:
    report = report_of([with_bounds])
    identity = metrics_json(report)["identity"]
    assert (identity["checked"], identity["matrices"]) == (6, 8)
    assert "BWT (T - 1) / T = ACC - A_m was checked, and holds, on 6 of 8 matrices;" in text_of(report)


@pytest.mark.parametrize(("asked", "first"), [(None, "average"), ("pam", "pam")])
def test_differences_are_from_one_system(asked: str | None, first: str, with_bounds: Path) -> None:
    report = report_of([with_bounds], against=asked)
    [comparison] = metrics_json(report)["comparisons"]
    assert comparison["against"] == first
    assert {pair["first"] for pair in comparison["paired"]} == {first}
    others = {"finetune", "average", "pam", "independent", "multitask"} - {first}
    assert {pair["second"] for pair in comparison["paired"] if pair["metric"] == "ACC"} == others
    acc = {(row["method"], row["order"]): row["metrics"]["ACC"] for row in comparison["sequences"]}
    [pair] = [p for p in comparison["paired"] if (p["second"], p["metric"]) == ("finetune", "ACC")]
    for one in pair["differences"]:
        expected = acc["finetune", one["order"]] - acc[first, one["order"]]
        assert one == {"order": one["order"], "seed": 0, "difference": expected}
    assert pair["n"] == len(pair["differences"]) == 2
    assert pair["ahead"] == sum(one["difference"] > 0 for one in pair["differences"])


def test_the_text_tells_differences_compactly(with_bounds: Path) -> None:
    report = report_of([with_bounds])
    text = text_of(report)
    [pair] = [
        pair
        for pair in metrics_json(report)["comparisons"][0]["paired"]
        if (pair["second"], pair["metric"]) == ("multitask", "ACC")
    ]
    compact = f"{pair['mean']:+.2f} ± {pair['std']:.2f} ({pair['ahead']} of 2)"
    each = " | ".join(f"{one['difference']:+.2f}" for one in pair["differences"])
    assert "### Paired differences from average" in text
    assert f"| multitask | {compact} | - | - |" in text
    assert f"| multitask | {each} | - | - | - | - |" in text


def test_a_system_that_is_not_there_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match="no system is called 'ties'") as refused:
        write_report([results], tmp_path / "report", against="ties")
    assert refused.value.way_on == "choose one of: finetune, pam"
    assert not (tmp_path / "report").exists()


def test_figures_of_every_method_tell_them_apart(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    ordered = [method for method in METHODS.values() if method.continues]
    for number, method in enumerate(ordered):
        states = [(("a",), 50.0), (("a", "b"), 30.0 + number)]
        append_results(
            file,
            [
                Result(task, "trained", tasks, "exact", score, 4, method=method.name)
                for tasks, score in states
                for task in "ab"
            ],
        )
    write_report([file], tmp_path / "report")
    for name in ("forgetting", "accuracy-by-order", "matrices"):
        text = (tmp_path / "report" / f"{name}.svg").read_text()
        assert all(f"<!-- {method.name}" in text for method in ordered), name
        with Image.open(tmp_path / "report" / f"{name}.png") as image:
            assert image.width < 1700


def test_the_recorded_results_keep_their_numbers() -> None:
    """As README prints them; the runs are those of the embedded tasks."""
    report = report_of([ROOT / "fixtures" / "embedded_results" / "results.jsonl"])
    [comparison] = report.comparisons
    assert report.notes == ()
    assert report.checked == (132, 144)
    assert comparison.systems == tuple(METHODS)
    acc = {system: comparison.spread(system, "ACC") for system in comparison.systems}
    told = {system: f"{s.mean:.2f} {s.std:.2f} {s.n}" for system, s in acc.items() if s and s.n > 6}
    assert told == {
        "finetune": "41.81 5.60 12",
        "average": "57.73 3.45 12",
        "pam": "57.59 4.26 12",
        "ties": "58.59 2.68 12",
        "tall": "58.16 2.10 12",
        "tall+pam": "58.25 2.39 12",
    }
    assert {len(comparison.of(system)) for system in comparison.systems} == {6, 12}


def test_scores_without_a_sequence_are_still_told(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    append_results(
        file, [Result("t|x", "base", (), "exact", 25.0, 4), Result("t", "trained", (), "exact", 50.0, 4)]
    )
    report = report_of([file])
    text = text_of(report)
    assert "| base | t\\|x | 25.00 | 4 |" in text
    assert "| trained | t | 50.00 | 4 |" in text
    assert "in no sequence" in report.notes[0]


def test_one_task_alone_and_two_sets_of_tasks(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    append_results(file, [Result("t", "trained", ("t",), "exact", 25.0, 4, method="x")])
    append_results(file, run_of("x", TASKS, 0))
    write_report([file], tmp_path / "report")
    names = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert {"forgetting.png", "matrices.png", "matrices-2.png"} <= names
    assert "forgetting-2.png" not in names
    assert "| x | 25.00 | - | - | 25.00 | 25.00 | 1 |" in (tmp_path / "report" / "report.md").read_text()


def test_sequences_that_nothing_tells_apart_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    append_results(
        file,
        [Result("t", "trained", ("t",), "exact", 25.0, 4, method="x", adapter=name) for name in ("p", "q")],
    )
    assert "--run" in report_of([file]).notes[0]


def test_other_splits_and_taken_folders_are_refused(results: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no result is of split 'val'"):
        write_report([results], tmp_path / "report", split="val")
    with pytest.raises(Refusal, match="already exists"):
        write_report([results], folder)
    assert not (tmp_path / "report").exists()
