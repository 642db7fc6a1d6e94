"""Training curves: the loss of one training by step, thinned to what a figure can show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FIRST = "first task"
"""What a plain first task is called in place of a system: many systems go on from it."""
POINTS = 60
"""Most points that a curve keeps."""


@dataclass(frozen=True)
class Curve:
    """The loss of one training.

    Attributes:
        system: as the report names it, or `FIRST`.
        order: None where it is not known, or the task was learned apart from the others.
        task: that was learned; several, joined by commas, where they were learned at once.
        steps: the last optimiser step of each point.
        loss: the mean over the steps of each point, terms included.
    """

    system: str
    order: str | None
    seed: int | None
    task: str
    steps: tuple[int, ...]
    loss: tuple[float, ...]


def thinned(
    steps: Sequence[int], loss: Sequence[float], most: int = POINTS
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """At most so many points of a curve, each the mean over steps that follow one another."""
    size = -(-len(steps) // most) or 1
    groups = range(0, len(steps), size)
    ends = tuple(steps[min(start + size, len(steps)) - 1] for start in groups)
    return ends, tuple(_mean(loss[start : start + size]) for start in groups)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(f"{sum(found) / len(found):.6g}")
