"""What a report is made from: JSON Lines files and folders of runs, each line told by its schema."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pamctl.evaluation.conflicts import SCHEMA as DIAGNOSIS
from pamctl.evaluation.conflicts import Diagnosis
from pamctl.evaluation.curves import Curve, Place, curves_of, place_in_run, refuse_broken
from pamctl.evaluation.json_lines import read_lines
from pamctl.evaluation.predictions import SCHEMA as PREDICTION
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import SCHEMA as RESULT
from pamctl.evaluation.results import WAY_ON, Result
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.training.metrics_log import FILE_NAME as LOG
from pamctl.training.metrics_log import SCHEMA as TRAINING

FILES = ("results.jsonl", "diagnostics.jsonl", "predictions.jsonl")
"""What `pamctl run` writes beside the adapters."""
_, _DIAGNOSTICS, _PREDICTIONS = FILES
_LOGS = f"*/seed-*/*/*/trained/{LOG}"


@dataclass
class Inputs:
    """What some files tell, each list in the order of the lines.

    Attributes:
        diagnoses, curves: with systems as their run labels them.
        notes: what to know of the files.
    """

    results: list[Result] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Inputs") -> None:
        """Append all that another one holds."""
        for name in vars(self):
            getattr(self, name).extend(getattr(other, name))

    @property
    def is_empty(self) -> bool:
        """Whether nothing but notes is here."""
        return not (self.results or self.predictions or self.diagnoses or self.curves)


def read_inputs(paths: Sequence[Path]) -> Inputs:
    """Read files and folders of runs; one that is named twice is read once.

    Raises:
        Refusal: a line is at fault, a file or folder holds nothing of the kind, or no results are there.
    """
    found, seen = Inputs(), set()
    for path in paths:
        for file, place in _files(path):
            if (real := os.path.realpath(file)) not in seen:
                seen.add(real)
                found.add(told := _read(file, place))
                if file == path and told.is_empty:
                    raise Refusal(f"{path} holds no results", "write some with pamctl eval --results")
    if not found.results:
        raise _no_results(paths, found)
    return found


def _no_results(paths: Sequence[Path], found: Inputs) -> Refusal:
    named = ", ".join(map(str, paths))
    if not found.predictions:
        return Refusal(f"no results are in {named}", "name a file that pamctl eval --results or run wrote")
    several = len(paths) > 1
    file = "FILE" if several else paths[0] / _PREDICTIONS if paths[0].is_dir() else paths[0]
    scoring = f"pamctl eval --from-predictions {file} --task TASK --results RESULTS"
    return Refusal(
        f"{named} {'hold' if several else 'holds'} predictions and no results",
        f"name the file of results too, or score them with {scoring}",
    )


def _files(path: Path) -> Iterator[tuple[Path, Place | None]]:
    """The files of a path, training logs with the place in their run."""
    if not os.path.lexists(path):
        raise UsageRefusal(
            f"no such file or folder: {path}",
            "name files that pamctl eval --results wrote, or folders that pamctl run wrote",
        )
    if not path.is_dir():
        yield path, None
        return
    there = [path / name for name in FILES if (path / name).is_file()]
    logs = sorted(path.glob(_LOGS))
    if not there and not logs:
        raise UsageRefusal(f"{path} holds no {', '.join(FILES)}", "name a folder that pamctl run wrote")
    yield from ((file, None) for file in there)
    for log in logs:
        try:
            yield log, place_in_run(log.relative_to(path))
        except ValueError as fault:
            raise UsageRefusal(
                f"{log} is not in a folder of a seed, as seed-0 is", "name a folder that pamctl run wrote"
            ) from fault


def _read(path: Path, place: Place | None) -> Inputs:
    """All that one file tells.

    Results beside diagnostics are left out: they are of adapters that a run pruned to see what that costs.
    """
    found, events = Inputs(), []
    for line in read_lines(path):
        if line.record is None:
            found.notes.append(line.torn_note(path))
            continue
        try:
            if (schema := _schema_of(line.record)) == TRAINING:
                refuse_broken(line.record)
                events.append(line.record)
            else:
                _add(found, schema, line.record)
        except ValueError as fault:
            raise Refusal(f"{path} line {line.number}: {fault}", WAY_ON) from fault
    found.curves += _curves(path, events, place)
    if path.name == _DIAGNOSTICS or found.diagnoses:
        found.results.clear()
    return found


def _schema_of(record: Mapping[str, Any]) -> object:
    """What a line is; only a training log has lines that do not tell it, and old results."""
    if "event" in record:
        return TRAINING
    return record.get("schema", RESULT)


def _add(found: Inputs, schema: object, record: Mapping[str, Any]) -> None:
    if schema == PREDICTION:
        found.predictions.append(Prediction.from_json(record))
    elif schema == DIAGNOSIS:
        if (diagnosis := Diagnosis.from_json(record)) is not None:
            found.diagnoses.append(diagnosis)
    else:
        found.results.append(Result.from_json(record))


def _curves(path: Path, events: Iterable[Mapping[str, Any]], place: Place | None) -> list[Curve]:
    try:
        return list(curves_of(events, place))
    except (KeyError, TypeError, ValueError) as fault:
        raise Refusal(f"{path} is no training log: {fault!r}", "name another file") from fault
