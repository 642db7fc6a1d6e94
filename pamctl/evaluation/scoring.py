"""How answers become a result: each scored by the task's metric, then the mean, also by question type."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pamctl.adapters import Adapter
from pamctl.evaluation.answers import metric_named
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import Result, TypeScore, examples_fingerprint
from pamctl.tasks.task import TEST, Example, Task


def scored(task: Task, split: str, examples: Sequence[Example], texts: Sequence[str]) -> list[Prediction]:
    """The predictions that some decoded texts are, one an example, in that order; their state is not told."""
    score = metric_named(task.metric).score
    return [
        Prediction(
            task.name,
            example.id,
            example.prefix,
            text,
            example.answers,
            100 * score(text, example.answers),
            split,
            task.metric,
            example.type,
        )
        for example, text in zip(examples, texts, strict=True)
    ]


def unscored(
    task: Task, base: str | None, adapter: Adapter | None, *, split: str = TEST, limit: int | None = None
) -> Result:
    """A result without its score, placed in its sequence by the adapter's provenance.

    The labels `order` and `run` are taken from the provenance's parameters. An adapter without provenance is
    `trained` and has learned no tasks that are known.

    Args:
        base: fingerprint of the base.
        limit: of the first so many examples.
    """
    examples = task.split(split)[:limit]
    result = Result(
        task=task.name,
        stage="base",
        tasks=(),
        metric=task.metric,
        score=0.0,
        n=len(examples),
        split=split,
        examples=examples_fingerprint(examples),
        base=base,
    )
    return result if adapter is None else replace(result, **place_of(adapter))


def summed_up(result: Result, predictions: Sequence[Prediction]) -> Result:
    """A result with the score that the predictions of all its examples make."""
    reads = metric_named(result.metric).reads
    return replace(
        result,
        score=mean_score(predictions),
        types=_by_type(predictions),
        unread=sum(not reads(prediction.prediction) for prediction in predictions),
    )


def place_of(adapter: Adapter) -> Mapping[str, Any]:
    """The fields of a result that tell which adapter it is of, and where that stands in a sequence."""
    told = adapter.provenance
    if told is None:
        return {"adapter": adapter.fingerprint, "stage": "trained"}
    labels = {name: told.parameters.get(name) for name in ("order", "run")}
    return {
        "adapter": adapter.fingerprint,
        "stage": told.stage,
        "tasks": told.tasks,
        "parents": tuple(parent.fingerprint for parent in told.parents),
        "method": told.method,
        "seed": told.seed,
        **{name: None if label is None else str(label) for name, label in labels.items()},
    }


def placed(predictions: Iterable[Prediction], result: Result) -> list[Prediction]:
    """The predictions with the place of the result that they make."""
    place = {name: getattr(result, name) for name in PLACE}
    return [replace(prediction, **place) for prediction in predictions]


PLACE = ("stage", "tasks", "adapter", "parents", "base", "method", "order", "run", "seed")
"""The fields by which a result and its predictions tell which state of which sequence they are of."""


def mean_score(predictions: Sequence[Prediction]) -> float:
    """Mean score in percent, summed without rounding error so that it does not depend on the order."""
    return math.fsum(prediction.score for prediction in predictions) / len(predictions)


def _by_type(predictions: Iterable[Prediction]) -> dict[str, TypeScore] | None:
    """The scores by question type, in the order of their names; None where no example has a type."""
    of_type: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        if prediction.type is not None:
            of_type.setdefault(prediction.type, []).append(prediction)
    return {name: TypeScore(mean_score(some), len(some)) for name, some in sorted(of_type.items())} or None
