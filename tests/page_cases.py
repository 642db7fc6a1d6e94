"""Reports made by hand for the tests of the web page: matrices, predictions, conflicts, curves, pictures."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from PIL import Image

from pamctl.evaluation.conflicts import LayerConflicts
from pamctl.evaluation.curves import Curve
from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.report import Report
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import comparisons_of
from pamctl.training.methods import METHODS

METHODS_SHOWN = ("finetune", "average", "pam")
TASKS = ("tiny-a", "tiny-b", "tiny-c")
EXAMPLES = 8
"""Predictions of every state on every task, as `pamctl run` keeps them."""
UNLEARNED, LEARNED = 12.0, 80.0
"""The score (%) of a task before it is learned, and when it is."""
LOST = (20.0, 4.0, 11.0)
"""How much each task learned after it costs, by the place of the method."""


def report_of_grid(
    methods: Sequence[str] = METHODS_SHOWN,
    tasks: Sequence[str] = TASKS,
    orders: int = 2,
    seeds: int = 2,
    answer: str = "yes",
) -> Report:
    """A whole grid: every method learns every task in every order with every seed.

    Predictions are there of the first order and seed.
    """
    matrices = [
        _matrix(method, (*tasks[order:], *tasks[:order]), order, seed, LOST[place % len(LOST)])
        for order, seed, (place, method) in product(range(orders), range(seeds), enumerate(methods))
    ]
    told = [answers for matrix in matrices[: len(methods)] for answers in _answers(matrix, answer)]
    return Report(
        results=tuple(Result(task, "base", (), "exact", UNLEARNED, 400) for task in tasks),
        comparisons=tuple(comparisons_of(matrices)),
        notes=(),
        predictions=tuple(told),
        conflicts=tuple(_conflicts(method) for method in methods if METHODS[method].merge is not None),
        curves=tuple(_curve(method, task) for task in tasks for method in methods),
    )


def picture(task: str, id: str) -> Image.Image | None:
    """A picture of every example, larger than a page has it."""
    return Image.new("RGB", (640, 480), (40 * int(id.rsplit("-", 1)[1]) % 256, len(task) % 256, 90))


def no_picture(task: str, id: str) -> None:
    """No picture is at hand."""


def _matrix(method: str, tasks: tuple[str, ...], order: int, seed: int, lost: float) -> AccuracyMatrix:
    count = len(tasks)
    draws = np.random.default_rng([len(method), order, seed])
    age = np.subtract.outer(np.arange(count), np.arange(count))
    after = np.where(age < 0, UNLEARNED, LEARNED - lost * age)
    after = np.clip(after + draws.normal(0, 3, after.shape), 0, 100)
    return AccuracyMatrix(
        method=method,
        run=None,
        order=f"order-{order + 1}",
        seed=seed,
        tasks=tasks,
        after=after,
        trained=np.clip(np.diag(after) + draws.uniform(0, 5, count), 0, 100),
        zero_shot=np.full(count, UNLEARNED),
        missing=(),
        adapters=tuple(f"{method}-{order}-{seed}-{learned}" for learned in range(count)),
    )


def _answers(matrix: AccuracyMatrix, answer: str) -> Iterator[Prediction]:
    """Predictions of the base, which are the same for every matrix, and of each state after a task."""
    states = [(None, matrix.zero_shot), *zip(matrix.adapters, matrix.after, strict=True)]
    for (adapter, scores), number in product(states, range(EXAMPLES)):
        for task, score in zip(matrix.tasks, scores, strict=True):
            right = number < EXAMPLES * score / 100
            yield Prediction(
                task=task,
                id=f"{task}-{number}",
                prefix=f"answer en is it {number}?",
                prediction=answer if right else "no idea",
                answers=(answer,),
                score=100.0 if right else 0.0,
                stage="base" if adapter is None else "trained",
                adapter=adapter,
            )


def _conflicts(method: str) -> LayerConflicts:
    layers = tuple(f"language_model.layers.{number}" for number in range(4))
    shares = {"a": (4.0, 5.5, 6.0, None), "b": (9.0, 8.0, 8.5, 7.0)}
    return LayerConflicts(method, layers, shares, {"a": (20.0,) * 4, "b": (21.0,) * 4}, 3)


def _curve(method: str, task: str) -> Curve:
    steps = tuple(range(10, 310, 10))
    return Curve(method, "order-1", 0, task, steps, tuple(4 * 0.9**place + 0.2 for place in range(30)))
