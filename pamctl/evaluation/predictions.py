"""What a prediction is: the decoded answer to one example, and which state of which sequence gave it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from pamctl.adapters.provenance import Stage
from pamctl.evaluation.json_lines import read_lines
from pamctl.evaluation.record_fields import Fields, refuse_other_stage
from pamctl.refusal import Refusal
from pamctl.whole_output import whole_file

SCHEMA = "pamctl.prediction/1"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The decoded answer to one example.

    What comes after `score` is its place, with the meanings of `Result`; None or empty where unknown.

    Attributes:
        prefix: the exact prompt.
        score: in percent.
        type: of the question, where the task tells types.
    """

    task: str
    id: str
    prefix: str
    prediction: str
    answers: tuple[str, ...]
    score: float
    split: str | None = None
    metric: str | None = None
    type: str | None = None
    stage: Stage | None = None
    tasks: tuple[str, ...] = ()
    adapter: str | None = None
    parents: tuple[str, ...] = ()
    base: str | None = None
    method: str | None = None
    order: str | None = None
    run: str | None = None
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as one JSON object; it holds no times and no paths."""
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in _FIELDS.kinds}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises ValueError that names the field which is wrong; fields that are not ours are left alone."""
        known = _FIELDS.read(record)
        refuse_other_stage(known.get("stage"))
        if not 0 <= known["score"] <= 100:
            raise ValueError(f"`score` is {known['score']} percent")
        return cls(**known)


_FIELDS = Fields(
    SCHEMA,
    kinds={field.name: (str,) for field in fields(Prediction)} | {"score": (int, float), "seed": (int,)},
    required=("task", "id", "prefix", "prediction", "answers", "score"),
    lists=("answers", "tasks", "parents"),
)


class PredictionsFile:
    """A predictions file while it is written; see `predictions_file`."""

    def __init__(self, draft: Path) -> None:
        self._draft = draft

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Write some predictions as JSON Lines, after those before."""
        with self._draft.open("a", encoding="utf-8") as file:
            for prediction in predictions:
                file.write(json.dumps(prediction.to_json(), ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def predictions_file(path: Path, *, force: bool = False) -> Iterator[PredictionsFile]:
    """A file to add predictions to: it is at `path`, complete, when the block ends well, and else absent.

    Raises:
        Refusal: `path` exists and `force` is not given, or it cannot be written.
    """
    with whole_file(path, force=force) as draft:
        yield PredictionsFile(draft)


def read_predictions(path: Path) -> tuple[list[Prediction], list[str]]:
    """Every prediction of a file, in order, and a note for each line that a killed writer left torn.

    Raises:
        Refusal: a line is no prediction, named with the field at fault, or there is none.
    """
    predictions: list[Prediction] = []
    notes: list[str] = []
    for line in read_lines(path):
        if line.record is None:
            notes.append(line.torn_note(path))
            continue
        try:
            predictions.append(Prediction.from_json(line.record))
        except ValueError as fault:
            raise Refusal(
                f"{path} line {line.number}: {fault}", "remove the line, or name another file"
            ) from fault
    if not predictions:
        raise Refusal(f"{path} holds no predictions", "write some with pamctl eval --predictions")
    return predictions, notes
