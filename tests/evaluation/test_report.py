"""The report folder: its tables, numbers and figures, the same bytes for the same results."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.evaluation.report import write_report
from pamctl.evaluation.results import Result, append_results
from pamctl.refusal import Refusal

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
        for name in ("forgetting", "accuracy-by-order", "matrices")
        for kind in ("png", "svg")
    }
    assert set(first) == {"report.md", "metrics.json", "matrix.csv"} | figures
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
    report = write_report([part], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| zero-shot | n/a |" in text
    assert "pamctl eval --task tiny-a --task tiny-b --task tiny-c --results" in text
    assert "left torn" in report.notes[0]
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["notes"] == list(report.notes)


def test_scores_without_a_sequence_are_still_told(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    append_results(
        file, [Result("t|x", "base", (), "exact", 25.0, 4), Result("t", "trained", (), "exact", 50.0, 4)]
    )
    report = write_report([file], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
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


def test_sequences_that_nothing_tells_apart_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    append_results(
        file,
        [Result("t", "trained", ("t",), "exact", 25.0, 4, method="x", adapter=name) for name in ("p", "q")],
    )
    assert "--run" in write_report([file], tmp_path / "report").notes[0]


def test_other_splits_and_taken_folders_are_refused(results: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no result is of split 'val'"):
        write_report([results], tmp_path / "report", split="val")
    with pytest.raises(Refusal, match="already exists"):
        write_report([results], folder)
    assert not (tmp_path / "report").exists()
