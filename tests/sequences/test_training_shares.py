"""The shares that a training's log tells, by hand."""

import json
from pathlib import Path

import pytest

from pamctl.sequences.training_shares import training_shares
from pamctl.training.metrics_log import FILE_NAME


def write_log(folder: Path, *events: dict[str, object]) -> Path:
    (folder / FILE_NAME).write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_means_over_checks_and_steps(tmp_path: Path) -> None:
    checks = [
        {"event": "align", "conflicts": {"percent": {"overall": share, "a": 0.0, "b": 2 * share}}}
        for share in (1.0, 2.0)
    ]
    steps = [
        {"event": "step", "loss": 3.0, "terms": {"orth": 1.0, "lwf": 1.0}},
        {"event": "step", "loss": 8.0, "terms": {"orth": 6.0, "lwf": 0.0}},
    ]
    told = training_shares(write_log(tmp_path, {"event": "start"}, *steps, *checks))
    assert told["realignments"] == 2
    assert told["put_back_percent"] == {"overall": 1.5, "a": 0.0, "b": 3.0}
    assert told["terms_to_cross_entropy"] == pytest.approx({"orth": 2.0, "lwf": 0.5})


def test_a_training_without_either(tmp_path: Path) -> None:
    told = training_shares(write_log(tmp_path, {"event": "start"}, {"event": "step", "loss": 1.0}))
    assert told == {"realignments": 0, "put_back_percent": None, "terms_to_cross_entropy": {}}
