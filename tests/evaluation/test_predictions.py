"""Predictions files: what a record holds, old ones, whole or absent, lines at fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pamctl.evaluation.predictions import Prediction, predictions_file, read_predictions
from pamctl.refusal import Refusal

OLD = {"task": "t", "id": "1", "prefix": "q", "prediction": "Größe", "answers": ["a", "b"], "score": 30}
PLACED = Prediction(
    "t",
    "1",
    "q",
    "Größe",
    ("a", "b"),
    30.0,
    split="val",
    metric="vqa",
    type="yes/no",
    stage="merged",
    tasks=("s", "t"),
    adapter="f" * 64,
    parents=("1" * 64, "2" * 64),
    base="b" * 64,
    method="pam",
    order="order-1",
    run="p=20",
    seed=0,
)


def written(file: Path, *predictions: Prediction, force: bool = False) -> Path:
    with predictions_file(file, force=force) as opened:
        opened.add(predictions)
    return file


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    unplaced = Prediction("t", "2", "q", "", ("a",), 0.0)
    file = written(tmp_path / "p.jsonl", PLACED, unplaced)
    assert read_predictions(file) == ([PLACED, unplaced], [])
    first = json.loads(file.read_text().splitlines()[0])
    assert first == {
        "schema": "pamctl.prediction/1",
        "task": "t",
        "id": "1",
        "prefix": "q",
        "prediction": "Größe",
        "answers": ["a", "b"],
        "score": 30.0,
        "split": "val",
        "metric": "vqa",
        "type": "yes/no",
        "stage": "merged",
        "tasks": ["s", "t"],
        "adapter": "f" * 64,
        "parents": ["1" * 64, "2" * 64],
        "base": "b" * 64,
        "method": "pam",
        "order": "order-1",
        "run": "p=20",
        "seed": 0,
    }


def test_a_record_from_before_places_were_told_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"schema": "pamctl.prediction/1", **OLD, "mine": 1}) + '\n{"task": "t", "id')
    assert read_predictions(file) == (
        [Prediction("t", "1", "q", "Größe", ("a", "b"), 30)],
        [f"{file} line 2 was left torn by a stopped writer and is skipped"],
    )


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    with pytest.raises(ValueError, match="Out of range"), predictions_file(file) as opened:
        opened.add([PLACED, replace(PLACED, score=float("nan"))])
    assert not [*tmp_path.iterdir()]
    written(file, PLACED, PLACED)
    with pytest.raises(Refusal, match="already exists"):
        written(file, PLACED)
    assert len(read_predictions(written(file, PLACED, force=True))[0]) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": 1}, "`id` is 1"),
        ({"answers": "a"}, "`answers` is 'a'"),
        ({"answers": ["a", 1]}, "`answers` is ['a', 1]"),
        ({"prediction": None}, "`prediction` is missing"),
        ({"score": 101}, "`score` is 101 percent"),
        ({"score": "1"}, "`score` is '1'"),
        ({"stage": "final"}, "`stage` is 'final'"),
        ({"tasks": "a"}, "`tasks` is 'a'"),
        ({"seed": 1.5}, "`seed` is 1.5"),
        ({"schema": "pamctl.result/1"}, "`schema` is 'pamctl.result/1'"),
    ],
)
def test_a_record_at_fault_is_named_by_line_and_field(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("\n" + json.dumps(OLD | change) + "\n")
    with pytest.raises(Refusal) as refused:
        read_predictions(file)
    assert refused.value.what.startswith(f"{file} line 2: {fault}")


def test_a_file_without_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(Refusal, match="holds no predictions"):
        read_predictions(tmp_path / "p.jsonl")
