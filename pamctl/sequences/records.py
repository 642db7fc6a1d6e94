"""What is known of a run already: the scores and diagnostics that its files hold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pamctl.evaluation.json_lines import append_records, read_lines
from pamctl.evaluation.results import SCHEMA as RESULT
from pamctl.evaluation.results import Result
from pamctl.refusal import Refusal
from pamctl.sequences.diagnostics import SCHEMA as DIAGNOSIS
from pamctl.sequences.steps import DIAGNOSTICS, RESULTS
from pamctl.tasks.task import TEST

Stage = tuple[str, int, str, str]


class Records:
    """The results.jsonl and diagnostics.jsonl of a run's folder; other processes may append to them too.

    Args:
        base: fingerprint of the base; results of another one do not count.
    """

    def __init__(self, out: Path, base: str) -> None:
        self._out, self._base = out, base
        self._written: set[tuple[str, Result]] = set()
        self._scores: dict[tuple[str | None, str], Result] = {}
        self._stages: dict[Stage, Mapping[str, Any]] = {}
        for file in (RESULTS, DIAGNOSTICS):
            self._read(file)

    def score_of(self, adapter: str | None, task: str) -> Result | None:
        """The result of an adapter, by fingerprint, on a task, under whichever labels; None for none."""
        return self._scores.get((adapter, task))

    def add(self, file: str, result: Result) -> None:
        """Append a result that the file does not hold yet."""
        if (file, _key(result)) not in self._written:
            append_records(self._out / file, [result.to_json()])
            self._know(file, result)

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

    def _read(self, file: str) -> None:
        path = self._out / file
        if not path.exists():
            return
        for line in read_lines(path):
            record = line.record or {}
            if record.get("schema") == DIAGNOSIS:
                stage = (record["order"], record["seed"], record["system"], record["task"])
                self._stages[stage] = record
            elif record.get("schema") == RESULT:
                try:
                    result = Result.from_json(record)
                except ValueError as fault:
                    raise Refusal(f"{path} line {line.number}: {fault}", "remove the line") from fault
                if result.base == self._base and result.split == TEST:
                    self._know(file, result)


def _key(result: Result) -> Result:
    """A result without what its labels do not decide."""
    return replace(result, score=0.0, n=1, examples=None, types=None, unread=None)
