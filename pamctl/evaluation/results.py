"""What a result is: the score of one adapter on one task, with what is needed to place it in a sequence.

Every score is in percent, a prediction's as well, so the score of a result is the mean over its predictions.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pamctl.adapters.provenance import Stage
from pamctl.evaluation.json_lines import append_records, read_lines
from pamctl.evaluation.predictions import SCHEMA as PREDICTION
from pamctl.evaluation.record_fields import Fields, is_a, refuse_other_stage
from pamctl.refusal import Refusal, UsageRefusal

if TYPE_CHECKING:
    from pamctl.tasks.task import Example

SCHEMA = "pamctl.result/1"
WAY_ON = "remove the line, or evaluate again with pamctl eval --results"


@dataclass(frozen=True)
class TypeScore:
    """The score of the examples of one question type: mean in percent, and their number."""

    score: float
    n: int


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
        types: the scores by question type, by name; None where the task tells no types.
        unread: how many predictions no answer could be read from, each scored 0; None where not counted.
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
    types: Mapping[str, TypeScore] | None = field(default=None, hash=False)
    unread: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as one JSON object; it holds no times and no paths."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises ValueError that names the field which is wrong; fields that are not ours are left alone."""
        known = _FIELDS.read(record)
        refuse_other_stage(known["stage"])
        n = known["n"]
        if not 0 <= known["score"] <= 100 or n < 1:
            raise ValueError(f"`score` is {known['score']} percent of n = {n}")
        if not 0 <= known.get("unread", 0) <= n:
            raise ValueError(f"`unread` is {known['unread']} of n = {n}")
        return cls(**known, types=_types(record.get("types"), n))


_FIELDS = Fields(
    SCHEMA,
    kinds={each.name: (str,) for each in fields(Result) if each.name != "types"}
    | {"score": (int, float), "n": (int,), "seed": (int,), "unread": (int,)},
    required=("task", "stage", "tasks", "metric", "score", "n"),
    lists=("tasks", "parents"),
)


def _types(value: Any, n: int) -> dict[str, TypeScore] | None:
    """The scores by type of a record with n examples; raises ValueError that names the type at fault."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"`types` is {value!r}")
    found = {}
    for name, told in value.items():
        part: dict[str, Any] = told if isinstance(told, dict) else {}
        score: Any = part.get("score")
        count: Any = part.get("n")
        if not is_a(score, (int, float)) or not is_a(count, (int,)) or not 0 <= score <= 100 or count < 1:
            raise ValueError(f"`types` has {told!r} for {name!r}")
        found[name] = TypeScore(score, count)
    if (total := sum(each.n for each in found.values())) > n:
        raise ValueError(f"`types` has {total} examples of n = {n}")
    return found


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
                notes.append(line.torn_note(path))
                continue
            results.append(_result(path, line.number, line.record))
        if len(results) == before:
            raise Refusal(f"{path} holds no results", "write some with pamctl eval --results")
    return results, notes


def held_results(path: Path) -> tuple[list[Result], list[str]]:
    """The results that a file which may be appended to holds already, and notes as from `read_results`.

    A file that is absent holds none. Records of other kinds, such as diagnostics, are passed over, except
    predictions, whose file is written as a whole.

    Raises:
        UsageRefusal: the file holds predictions.
    """
    results: list[Result] = []
    notes: list[str] = []
    for line in read_lines(path) if path.exists() else ():
        if line.record is None:
            notes.append(line.torn_note(path))
        elif (schema := line.record.get("schema", SCHEMA)) == PREDICTION:
            raise UsageRefusal(f"{path} holds predictions, not results", "name another file for the results")
        elif schema == SCHEMA:
            results.append(_result(path, line.number, line.record))
    return results, notes


def latest_of_cell(cell: Result, results: Sequence[Result]) -> Result | None:
    """The last of some results that is of the same cell, whatever its score; None where there is none.

    A cell is what was scored, an adapter or else the base, on which examples, by which metric, and the labels
    under which it stands in a report.
    """
    return next((result for result in reversed(results) if _cell(result) == _cell(cell)), None)


def is_last_word(result: Result, results: Sequence[Result]) -> bool:
    """Whether the last of some results that is the same but for the score has that score too."""
    alike = (each for each in reversed(results) if scored_as(each, result) == result)
    return next(alike, None) == result


def scored_as(result: Result, known: Result) -> Result:
    """A result with the score that is known from another."""
    return replace(result, score=known.score, types=known.types, unread=known.unread)


def _cell(result: Result) -> tuple[object, ...]:
    scored = result.adapter or result.base
    labels = (result.stage, result.order, result.run)
    return (scored, result.task, result.split, result.examples, result.n, result.metric, *labels)


def _result(path: Path, number: int, record: Mapping[str, Any]) -> Result:
    try:
        return Result.from_json(record)
    except ValueError as fault:
        raise Refusal(f"{path} line {number}: {fault}", WAY_ON) from fault


def examples_fingerprint(examples: Iterable["Example"]) -> str:
    """16 hex digits that change with any id, prefix or answer, or their order; images are not read."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.id, example.prefix, example.answers)).encode())
    return digest.hexdigest()[:16]
