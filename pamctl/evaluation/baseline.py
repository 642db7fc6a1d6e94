"""How two runs of the same systems differ: metric by metric, and cell by cell of the accuracy matrix."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.metrics import METRICS
from pamctl.evaluation.summary import Comparison, Paired

BASELINE = "baseline"
LARGEST = 10
"""So many of the cells that differ most are told."""
Draw = tuple[str, tuple[str, ...], str | None, int | None]
"""A system, the tasks in their order, a label where they have none, and a seed: the same in both runs."""


@dataclass(frozen=True)
class CellChange:
    """One cell of a matrix in two runs, in percent.

    Attributes:
        after: how many tasks were learned, 0 for zero-shot; of a method that learns no sequence all.
        before: its score in the baseline.
    """

    system: str
    order: str
    seed: int | None
    after: int
    task: str
    before: float
    now: float

    @property
    def difference(self) -> float:
        """Now minus before."""
        return self.now - self.before


@dataclass(frozen=True)
class Changes:
    """What changed from a baseline to a comparison over the same tasks.

    Attributes:
        metrics: baseline to now for each system and metric, over the sequences that both have.
        cells: that differ, the largest difference first.
        compared: how many cells both have.
        only_now, only_before: systems that one of them lacks.
    """

    metrics: tuple[Paired, ...]
    cells: tuple[CellChange, ...]
    compared: int
    only_now: tuple[str, ...]
    only_before: tuple[str, ...]

    @property
    def largest(self) -> tuple[CellChange, ...]:
        """The cells that differ most."""
        return self.cells[:LARGEST]


def changes_of(now: Comparison, before: Comparison) -> Changes:
    """What changed; sequences are matched by system, order of the tasks and seed."""
    then = _by_draw(before)
    pairs = [(matrix, then[draw]) for draw, matrix in _by_draw(now).items() if draw in then]
    cells = [cell for new, old in pairs for cell in _cells(now, new, old)]
    differing = [cell for cell in cells if cell.difference]
    differing.sort(key=lambda cell: -abs(cell.difference))
    return Changes(
        metrics=tuple(_paired(now, before, pairs)),
        cells=tuple(differing),
        compared=len(cells),
        only_now=tuple(system for system in now.systems if system not in before.systems),
        only_before=tuple(system for system in before.systems if system not in now.systems),
    )


def _by_draw(comparison: Comparison) -> dict[Draw, AccuracyMatrix]:
    """The matrices by what they are; an order is known by its tasks, whatever it is called."""
    return {_draw(matrix): matrix for matrix in comparison.matrices}


def _draw(matrix: AccuracyMatrix) -> Draw:
    if matrix.kind == "sequence":
        return matrix.system, matrix.tasks, None, matrix.seed
    return matrix.system, tuple(sorted(matrix.tasks)), matrix.order, matrix.seed


def _paired(
    now: Comparison, before: Comparison, pairs: list[tuple[AccuracyMatrix, AccuracyMatrix]]
) -> Iterator[Paired]:
    for system in now.systems:
        own = [
            (now.order_of(new), new.seed, now.metrics_of(new), before.metrics_of(old))
            for new, old in pairs
            if new.system == system
        ]
        for metric in METRICS:
            differences = {
                (order, seed): new - old
                for order, seed, after, then in own
                if (new := after[metric]) is not None and (old := then[metric]) is not None
            }
            if differences:
                yield Paired(BASELINE, system, metric, differences)


def _cells(now: Comparison, new: AccuracyMatrix, old: AccuracyMatrix) -> Iterator[CellChange]:
    """The cells that both matrices have; tasks in no order may stand in another one in the older matrix."""
    places = [old.tasks.index(task) for task in new.tasks]
    rows = [(0, new.zero_shot, old.zero_shot[places])]
    last = len(new.tasks)
    if new.kind == "sequence":
        rows += [(t + 1, new.after[t], old.after[t]) for t in range(last)]
    else:
        rows.append((last, new.after[-1], old.after[-1][places]))
    order = now.order_of(new)
    for after, scores, then in rows:
        for i in np.flatnonzero(~np.isnan(scores) & ~np.isnan(then)):
            task = new.tasks[i]
            yield CellChange(new.system, order, new.seed, after, task, float(then[i]), float(scores[i]))
