"""What a result is: the score of one adapter on one task, with what is needed to place it in a sequence.

Every score is in percent, a prediction's as well, so the score of a result is the mean over its predictions.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from pamctl.adapters.provenance import Stage
from pamctl.evaluation.json_lines import append_records, read_lines
from pamctl.refusal import Refusal
from pamctl.whole_output import whole_file

if TYPE_CHECKING:
    from pamctl.tasks.task import Example

SCHEMA = "pamctl.result/1"
PREDICTION_SCHEMA = "pamctl.prediction/1"
WAY_ON = "remove the line, or evaluate again with pamctl eval --results"


@dataclass(frozen=True)
class Prediction:
    """The decoded answer to one example; `score` in percent."""

    id: str
    prefix: str
    prediction: str
    answers: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Result:
    """The score of one adapter on one task.

    Attributes:
        tasks: the tasks learned so far, in order; empty for the base.
        stage: `base` for no adapter, `trained` before merging, `merged` after.
        score: mean over the examples, in percent.
        n: number of examples scored.
        examples: fingerprint of their ids, prefixes and answers.
        adapter, parents, base: fingerprints; None where unknown.
        method, seed: of the adapter, as its `pamctl.json` tells.
        order, run: labels that tell apart sequences of the same method and seed.
    """

    task: str
    stage: Stage
    tasks: tuple[str, ...]
    metric: str
    score: float
    n: int
    split: str = "test"
    examples: str | None = None
    adapter: str | None = None
    parents: tuple[str, ...] = ()
    base: str | None = None
    method: str | None = None
    seed: int | None = None
    order: str | None = None
    run: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as one JSON object; it holds no times and no paths."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises ValueError that names the field which is wrong; fields that are not ours are left alone."""
        if record.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"`schema` is {record['schema']!r}, not {SCHEMA!r}")
        known: dict[str, Any] = {name: record[name] for name in FIELD_TYPES if record.get(name) is not None}
        for name, value in known.items():
            kinds = FIELD_TYPES[name]
            items = value if isinstance(value, list) else [value]
            if isinstance(value, list) != (name in LISTS) or not all(_is(item, kinds) for item in items):
                raise ValueError(f"`{name}` is {value!r}")
        for name in REQUIRED:
            if name not in known:
                raise ValueError(f"`{name}` is missing")
        if known["stage"] not in get_args(Stage):
            raise ValueError(f"`stage` is {known['stage']!r}, not one of {', '.join(get_args(Stage))}")
        if not 0 <= known["score"] <= 100 or known["n"] < 1:
            raise ValueError(f"`score` is {known['score']} percent of n = {known['n']}")
        lists: dict[str, Any] = {name: tuple(known[name]) for name in LISTS if name in known}
        return cls(**known | lists)


REQUIRED = ("task", "stage", "tasks", "metric", "score", "n")
LISTS = ("tasks", "parents")
FIELD_TYPES: Mapping[str, tuple[type, ...]] = {field.name: (str,) for field in fields(Result)} | {
    "score": (int, float),
    "n": (int,),
    "seed": (int,),
}


def append_results(path: Path, results: Sequence[Result]) -> None:
    """Append results to a JSON Lines file; safe while other processes append to it."""
    append_records(path, [result.to_json() for result in results])


def read_results(paths: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Every result of some files, in order, and a note for each line that a killed writer left torn."""
    results: list[Result] = []
    notes: list[str] = []
    for path in paths:
        before = len(results)
        for line in read_lines(path):
            if line.record is None:
                notes.append(f"{path} line {line.number} was left torn by a stopped writer and is skipped")
                continue
            try:
                results.append(Result.from_json(line.record))
            except ValueError as fault:
                raise Refusal(f"{path} line {line.number}: {fault}", WAY_ON) from fault
        if len(results) == before:
            raise Refusal(f"{path} holds no results", "write some with pamctl eval --results")
    return results, notes


def write_predictions(
    path: Path, predictions: Mapping[str, Sequence[Prediction]], *, force: bool = False
) -> None:
    """Write the predictions of each task as JSON Lines, complete or not at all."""
    with whole_file(path, force=force) as draft, draft.open("w", encoding="utf-8") as file:
        for task, answered in predictions.items():
            for prediction in answered:
                record = {"schema": PREDICTION_SCHEMA, "task": task, **asdict(prediction)}
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def mean_score(predictions: Sequence[Prediction]) -> float:
    """Mean score in percent, summed without rounding error so that it does not depend on the order."""
    return math.fsum(prediction.score for prediction in predictions) / len(predictions)


def examples_fingerprint(examples: Iterable["Example"]) -> str:
    """16 hex digits that change with any id, prefix or answer, or their order; images are not read."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.id, example.prefix, example.answers)).encode())
    return digest.hexdigest()[:16]


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value == value
