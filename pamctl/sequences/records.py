"""What is known of a run already: the scores, predictions and diagnostics that its files hold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pamctl.evaluation.json_lines import append_records, read_lines
from pamctl.evaluation.predictions import SCHEMA as PREDICTION
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import SCHEMA as RESULT
from pamctl.evaluation.results import Result
from pamctl.evaluation.scoring import PLACE
from pamctl.refusal import Refusal
from pamctl.sequences.diagnostics import SCHEMA as DIAGNOSIS
from pamctl.sequences.steps import DIAGNOSTICS, PREDICTIONS, RESULTS
from pamctl.tasks.task import TEST

Stage = tuple[str, int, str, str]


class Records:
    """The results, predictions and diagnostics in a run's folder; other processes may append to them too.

    Args:
        base: fingerprint of the base; results of another one do not count.
    """

    def __init__(self, out: Path, base: str) -> None:
        self._out, self._base = out, base
        self._written: set[tuple[str, Result]] = set()
        self._scores: dict[tuple[str | None, str], Result] = {}
        self._predicted: dict[tuple[object, ...], set[str]] = {}
        self._answers: dict[tuple[str | None, str], dict[str, str]] = {}
        self._stages: dict[Stage, Mapping[str, Any]] = {}
        for file in (RESULTS, PREDICTIONS, DIAGNOSTICS):
            self._read(file)

    def score_of(self, adapter: str | None, task: str) -> Result | None:
        """The result of an adapter, by fingerprint, on a task, under whichever labels; None for none."""
        return self._scores.get((adapter, task))

    def add(self, file: str, result: Result) -> None:
        """Append a result that the file does not hold yet."""
        if (file, _key(result)) not in self._written:
            append_records(self._out / file, [result.to_json()])
            self._know(file, result)

    def answers_of(self, adapter: str | None, task: str) -> Mapping[str, str]:
        """What an adapter, by fingerprint, answered to a task's first examples, by their ids."""
        return self._answers.get((adapter, task), {})

    def add_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Append those that the file does not hold yet."""
        new = [one for one in predictions if one.id not in self._predicted.get(_state(one), ())]
        if new:
            append_records(self._out / PREDICTIONS, [one.to_json() for one in new])
        for one in new:
            self._know_prediction(one)

    def diagnosed(self, stage: Stage) -> Mapping[str, Any] | None:
        return self._stages.get(stage)

    def add_diagnosis(self, stage: Stage, found: Mapping[str, Any]) -> None:
        """Append the diagnostics of a stage; none are there yet."""
        order, seed, system, task = stage
        where = {"order": order, "seed": seed, "system": system, "task": task}
        append_records(self._out / DIAGNOSTICS, [{"schema": DIAGNOSIS, **where, **found}])
        self._stages[stage] = found

    def _know(self, file: str, result: Result) -> None:
        self._written.add((file, _key(result)))
        self._scores.setdefault((result.adapter, result.task), result)

    def _know_prediction(self, one: Prediction) -> None:
        self._predicted.setdefault(_state(one), set()).add(one.id)
        self._answers.setdefault((one.adapter, one.task), {}).setdefault(one.id, one.prediction)

    def _read(self, file: str) -> None:
        path = self._out / file
        for line in read_lines(path) if path.exists() else ():
            try:
                self._read_record(file, line.record or {})
            except ValueError as fault:
                raise Refusal(f"{path} line {line.number}: {fault}", "remove the line") from fault

    def _read_record(self, file: str, record: Mapping[str, Any]) -> None:
        schema = record.get("schema")
        if schema == DIAGNOSIS:
            stage = (record["order"], record["seed"], record["system"], record["task"])
            self._stages[stage] = record
        elif schema == RESULT:
            result = Result.from_json(record)
            if result.base == self._base and result.split == TEST:
                self._know(file, result)
        elif schema == PREDICTION:
            prediction = Prediction.from_json(record)
            if prediction.base == self._base and prediction.split == TEST:
                self._know_prediction(prediction)


def _key(result: Result) -> Result:
    """A result without what its labels do not decide."""
    return replace(result, score=0.0, n=1, examples=None, types=None, unread=None)


def _state(prediction: Prediction) -> tuple[object, ...]:
    """Which state of which sequence answered which task."""
    return (prediction.task, *(getattr(prediction, name) for name in PLACE))
