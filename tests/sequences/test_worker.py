"""What a worker records of a score: the result and the first predictions, under the labels of each cell."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pamctl.adapters import Adapter
from pamctl.evaluation.predictions import Prediction, read_predictions
from pamctl.evaluation.results import Result, read_results
from pamctl.evaluation.scoring import scored, summed_up, unscored
from pamctl.models.base import Base
from pamctl.sequences.grid import Unit
from pamctl.sequences.steps import DIAGNOSTICS, PREDICTIONS, RESULTS, Score
from pamctl.sequences.workbench import Workbench
from pamctl.sequences.worker import Worker
from pamctl.tasks import Example, Task
from pamctl.training.stop_request import StopRequest
from tests.adapter_cases import random_adapter, saved

BASE = "b" * 64


def no_images() -> Sequence[Any]:
    raise AssertionError("nothing is decoded here")


TASK = Task(
    "red",
    {
        split: [Example(str(n), f"question {n}", (f"A{n}",), no_images) for n in range(10)]
        for split in ("train", "test")
    },
)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The adapters that were evaluated, None for the base; every second answer is right."""
    seen: list[str | None] = []

    def answer(bench: Workbench, adapter: Adapter | None, task: str) -> tuple[Result, list[Prediction]]:
        seen.append(adapter and adapter.fingerprint)
        examples = TASK.split("test")
        predictions = scored(TASK, "test", examples, [f"a{n}" if n % 2 else "" for n in range(len(examples))])
        return summed_up(unscored(TASK, BASE, adapter), predictions), predictions

    monkeypatch.setattr(Workbench, "evaluated", answer)
    return seen


def work(out: Path, *steps: Score) -> None:
    """Score in a folder, as a process that begins there does."""
    with StopRequest() as stop:
        worker = Worker(out, cast(Base, SimpleNamespace(fingerprint=BASE)), {"red": TASK}, stop)
        worker.do(Unit("unit", steps))


def kept(out: Path) -> list[Prediction]:
    return read_predictions(out / PREDICTIONS)[0]


IN_ONE, IN_TWO = (Score("adapter", ("red",), order, "p=20") for order in ("one", "two"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    saved(random_adapter(tasks=("red",)), tmp_path / "adapter")
    return tmp_path


def test_the_first_predictions_stand_where_their_result_does(out: Path, evaluated: list[str | None]) -> None:
    work(out, Score(None, ("red",)), IN_ONE)
    base, adapter = read_results([out / RESULTS])[0]
    assert evaluated == [None, adapter.adapter]
    assert [one.id for one in kept(out)] == [str(n) for n in range(8)] * 2
    assert [one.score for one in kept(out)] == [0.0, 100.0] * 8
    for result, some in ((base, kept(out)[:8]), (adapter, kept(out)[8:])):
        for one in some:
            assert (one.adapter, one.base, one.stage) == (result.adapter, BASE, result.stage)
            assert (one.order, one.run, one.tasks) == (result.order, result.run, result.tasks)


@pytest.mark.parametrize("in_one_go", [True, False])
def test_a_state_of_two_cells_has_them_in_both_and_is_evaluated_once(
    out: Path, evaluated: list[str | None], in_one_go: bool
) -> None:
    for steps in [(IN_ONE, IN_TWO)] if in_one_go else [(IN_ONE,), (IN_TWO,)]:
        work(out, *steps)
    assert len(evaluated) == 1
    assert [(one.id, one.order) for one in kept(out)] == [
        (str(n), order) for order in ("one", "two") for n in range(8)
    ]
    assert [one.prediction for one in kept(out)[:8]] == [one.prediction for one in kept(out)[8:]]
    written = (out / PREDICTIONS).read_bytes()
    work(out, IN_ONE, IN_TWO)
    assert (out / PREDICTIONS).read_bytes() == written


def test_killed_between_or_within_the_two_files_it_completes_them(
    out: Path, evaluated: list[str | None]
) -> None:
    work(out, IN_ONE)
    results, predictions = (out / RESULTS).read_text(), (out / PREDICTIONS).read_text()
    lines = predictions.splitlines(keepends=True)
    for end in (0, len("".join(lines[:3])) + 10, len(predictions)):
        (out / RESULTS).unlink()
        (out / PREDICTIONS).write_text(predictions[:end])
        work(out, IN_ONE)
        assert (out / RESULTS).read_text() == results
        found, torn = read_predictions(out / PREDICTIONS)
        assert [one.id for one in found] == [str(n) for n in range(8)]
        assert len(torn) == (0 < end < len(predictions))
    assert len(evaluated) == 4


def test_a_folder_from_before_predictions_were_kept_goes_on_without(
    out: Path, evaluated: list[str | None]
) -> None:
    work(out, IN_ONE)
    (out / PREDICTIONS).unlink()
    work(out, IN_ONE, IN_TWO)
    assert len(evaluated) == 1
    assert len(read_results([out / RESULTS])[0]) == 2
    assert not (out / PREDICTIONS).exists()


def test_what_only_diagnostics_score_leaves_none(out: Path, evaluated: list[str | None]) -> None:
    work(out, Score("adapter", ("red",), "one", file=DIAGNOSTICS))
    assert (out / DIAGNOSTICS).exists()
    assert not (out / PREDICTIONS).exists()
