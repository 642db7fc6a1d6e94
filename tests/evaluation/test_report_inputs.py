"""What a report reads: files of every kind in any order, and folders of runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pamctl.evaluation.curves import FIRST
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.report import report_of
from pamctl.evaluation.report_inputs import read_inputs
from pamctl.evaluation.results import Result
from pamctl.refusal import Refusal, UsageRefusal

RESULT = Result("b", "trained", ("a", "b"), "exact", 50.0, 4, method="pam", seed=3, order="o").to_json()
PRUNED = Result("b", "trained", ("a", "b"), "exact", 1.0, 4, method="align", order="o").to_json()
PREDICTION = Prediction("b", "1", "what?", "yes", ("no",), 0.0, split="test").to_json()
COUNTS = {"weights": 10, "differ": 4, "important": 5, "conflicts": 1}
DIAGNOSIS = {
    "schema": "pamctl.diagnostics/1",
    "order": "o",
    "seed": 3,
    "system": "pam-p30",
    "task": "b",
    "top_p": 50.0,
    "conflicts": {"important": {"modules": {"m.layers.0.q": {"a": COUNTS, "b": COUNTS}}}},
}
START = {"event": "start", "task": "b", "method": "pam", "seed": 3, "global_adapter": "g"}
STEPS = [{"event": "step", "step": step, "loss": loss} for step, loss in ((1, 4.0), (2, 2.0))]


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, as far as reports read it."""
    folder = tmp_path / "run"
    labelled = {**RESULT, "run": "p30"}
    write(folder / "results.jsonl", RESULT, labelled)
    write(folder / "diagnostics.jsonl", PRUNED, DIAGNOSIS)
    write(folder / "predictions.jsonl", PREDICTION, {**PREDICTION, "split": "val"})
    for place in ("o/seed-3/pam-p30/2-b", "o/seed-3/first/1-a", "alone/seed-3/independent/b"):
        write(folder / place / "trained" / "metrics.jsonl", START, *STEPS)
    write(folder / "report" / "metrics.json", {})
    return folder


def test_a_folder_of_a_run_is_read_whole(run: Path) -> None:
    report = report_of([run])
    assert [result.method for result in report.results] == ["pam", "pam"]
    assert [prediction.split for prediction in report.predictions] == ["test"]
    assert [(curve.system, curve.order, curve.seed) for curve in report.curves] == [
        ("pam (p30)", "o", 3),
        ("independent", None, 3),
        (FIRST, "o", 3),
    ]
    (conflicts,) = report.conflicts
    assert conflicts.system == "pam (p30)"
    assert conflicts.conflicts == {"a": (20.0,), "b": (20.0,)}
    assert conflicts.differ == {"a": (40.0,), "b": (40.0,)}


def test_what_a_run_pruned_is_in_no_sequence(run: Path) -> None:
    for paths in ([run], [run / "results.jsonl", run / "diagnostics.jsonl"]):
        assert {matrix.method for matrix in report_of(paths).comparisons[0].matrices} == {"pam"}


def test_lines_are_told_apart_in_any_order_and_in_one_file(tmp_path: Path) -> None:
    one = write(tmp_path / "all.jsonl", START, STEPS[0], PREDICTION, RESULT, STEPS[1])
    found = read_inputs([one])
    assert (len(found.results), len(found.predictions), len(found.curves)) == (1, 1, 1)
    assert found.curves[0].steps == (1, 2)
    files = [write(tmp_path / f"{n}.jsonl", line) for n, line in enumerate((PREDICTION, DIAGNOSIS, RESULT))]
    for paths in (files, files[::-1]):
        found = read_inputs(paths)
        assert (len(found.results), len(found.predictions), len(found.diagnoses)) == (1, 1, 1)


def test_a_log_without_a_schema_and_one_with_it_tell_whose_they_are(tmp_path: Path) -> None:
    results = write(tmp_path / "r.jsonl", RESULT)
    plain = {**START, "method": "finetune", "global_adapter": None, "schema": "pamctl.training/1"}
    log = write(tmp_path / "metrics.jsonl", plain, *STEPS)
    assert [curve.system for curve in read_inputs([results, log]).curves] == [FIRST]
    write(log, START, *STEPS)
    (curve,) = read_inputs([results, log]).curves
    assert (curve.system, curve.seed, curve.task, curve.loss) == ("pam", 3, "b", (4.0, 2.0))


def test_a_file_named_twice_is_read_once(run: Path) -> None:
    assert len(read_inputs([run, run / "results.jsonl", run]).results) == 2


def test_files_of_a_run_may_still_be_empty(run: Path) -> None:
    (run / "predictions.jsonl").write_text("")
    (run / "diagnostics.jsonl").write_text('{"torn')
    report = report_of([run])
    assert (report.predictions, report.conflicts) == ((), ())
    assert len(report.results) == 2


def test_a_torn_line_of_any_file_is_told(run: Path) -> None:
    for name in ("results.jsonl", "predictions.jsonl", "o/seed-3/pam-p30/2-b/trained/metrics.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"torn')
    notes = report_of([run]).notes
    assert [note.partition(" ")[0].rpartition("/")[2] for note in notes if "left torn" in note] == [
        "results.jsonl",
        "predictions.jsonl",
        "metrics.jsonl",
    ]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({**PREDICTION, "score": "x"}, "line 2: `score` is 'x'"),
        ({**DIAGNOSIS, "seed": None}, "line 2: `seed` is None"),
        ({**DIAGNOSIS, "conflicts": {}}, "line 2: `conflicts` does not count the signs of each module"),
        ({**RESULT, "schema": "other/1"}, "line 2: `schema` is 'other/1'"),
        ({**DIAGNOSIS, "top_p": 10**400}, "line 2: `top_p` is 1000"),
        ({"event": "step", "step": 1, "loss": 2.0}, "is no training log"),
        ({"event": "step", "step": 1, "loss": math.inf}, "line 2: `loss` is inf"),
        ({"event": "step", "step": 1, "loss": 10**400}, "line 2: `loss` is 1000"),
        ({"event": "step", "step": 1}, "line 2: `loss` is None"),
        ({"event": "step", "step": "1", "loss": 1}, "line 2: `step` is '1'"),
        ({"event": "step", "step": 10**400, "loss": 1}, "line 2: `step` is 1000"),
        ({"schema": "pamctl.training/1"}, "line 2: `event` is missing"),
        ({"event": "start", "task": None}, "line 2: `task` is None"),
    ],
)
def test_a_record_at_fault_is_named(record: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", RESULT, record)
    with pytest.raises(Refusal) as refused:
        read_inputs([file])
    assert f"{file} {told}" in refused.value.what


def test_what_holds_no_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageRefusal, match=r"empty holds no results\.jsonl"):
        read_inputs([tmp_path / "empty"])
    with pytest.raises(Refusal, match="no results are in"):
        read_inputs([write(tmp_path / "d.jsonl", DIAGNOSIS)])
    (tmp_path / "blank.jsonl").touch()
    with pytest.raises(Refusal, match=r"blank\.jsonl holds no results"):
        read_inputs([write(tmp_path / "r.jsonl", RESULT), tmp_path / "blank.jsonl"])


def test_predictions_without_results_are_told_from_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", PREDICTION)
    write(tmp_path / "run" / "predictions.jsonl", PREDICTION)
    for path in (file, tmp_path / "run"):
        with pytest.raises(Refusal) as refused:
            read_inputs([path])
        assert refused.value.what == f"{path} holds predictions and no results"
        assert "pamctl eval --from-predictions" in refused.value.way_on
    assert len(read_inputs([file, write(tmp_path / "r.jsonl", RESULT)]).predictions) == 1


def test_a_path_where_nothing_is_may_have_been_a_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal) as refused:
        read_inputs([tmp_path / "nowhere"])
    assert refused.value.what == f"no such file or folder: {tmp_path / 'nowhere'}"
    assert "files" in refused.value.way_on
    assert "folders that pamctl run wrote" in refused.value.way_on


def test_paths_that_no_run_has_are_refused(run: Path, tmp_path: Path) -> None:
    write(run / "o" / "seed-x" / "pam" / "2-b" / "trained" / "metrics.jsonl", START, *STEPS)
    with pytest.raises(UsageRefusal, match=r"seed-x.*is not in a folder of a seed"):
        read_inputs([run])
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(UsageRefusal, match=r"loop\.jsonl is not a file"):
        read_inputs([tmp_path / "loop.jsonl"])
