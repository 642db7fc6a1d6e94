"""How sequences are compared: mean and spread of each metric over orders and seeds, paired differences."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.metrics import METRICS

DDOF = 0


@dataclass(frozen=True)
class Spread:
    """Mean and population standard deviation (ddof 0) of n values."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Paired:
    """Second system minus first, one difference for each (order, seed) that both were run on."""

    first: str
    second: str
    metric: str
    differences: dict[tuple[str, int | None], float]

    @property
    def spread(self) -> Spread:
        """Mean and spread of the differences."""
        return spread_of(list(self.differences.values()))

    @property
    def better(self) -> int:
        """On how many of them the second system is ahead."""
        return sum(difference > 0 for difference in self.differences.values())


@dataclass(frozen=True)
class Comparison:
    """Sequences over one set of tasks; only these are averaged together."""

    matrices: tuple[AccuracyMatrix, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the first sequence."""
        return self.matrices[0].tasks

    @property
    def systems(self) -> tuple[str, ...]:
        """Every method (and run) that was compared, in alphabetical order."""
        return tuple(sorted({matrix.system for matrix in self.matrices}))

    @property
    def orders(self) -> tuple[str, ...]:
        """Every order, as `order_of` names it."""
        return tuple(dict.fromkeys(self.order_of(matrix) for matrix in self.matrices))

    def order_of(self, matrix: AccuracyMatrix) -> str:
        """The label of a matrix's order, or `order 1` and so on where the results give none."""
        unnamed = sorted({other.tasks for other in self.matrices if other.order is None})
        return matrix.order or f"order {unnamed.index(matrix.tasks) + 1}"

    def of(self, system: str, order: str | None = None) -> list[AccuracyMatrix]:
        """The sequences of one system, of one order if it is given."""
        matrices = [matrix for matrix in self.matrices if matrix.system == system]
        return [matrix for matrix in matrices if order in (None, self.order_of(matrix))]

    def spread(self, system: str, metric: str, order: str | None = None) -> Spread | None:
        """Mean and spread of a metric over the sequences that have it; None if none has."""
        values = [matrix.metrics[metric] for matrix in self.of(system, order)]
        known = [value for value in values if value is not None]
        return spread_of(known) if known else None

    def final_score(self, system: str, task: str) -> Spread | None:
        """Mean and spread of one task's score after the last task."""
        scores = [float(matrix.after[-1, matrix.tasks.index(task)]) for matrix in self.of(system)]
        known = [score for score in scores if not math.isnan(score)]
        return spread_of(known) if known else None

    def zero_shot(self) -> dict[str, float | None]:
        """The base's score on each task; None where no result tells."""
        return {task: next(self._zero_shots(task), None) for task in self.tasks}

    def forgetting(self, system: str) -> list[Spread | None]:
        """F_t for t = 2..T over the sequences that have it."""
        columns = zip(*(matrix.forgetting for matrix in self.of(system)), strict=True)
        known = [[value for value in column if value is not None] for column in columns]
        return [spread_of(values) if values else None for values in known]

    def repeated(self) -> list[tuple[str, str, int | None]]:
        """Every (system, order, seed) that more than one sequence has."""
        draws = Counter((matrix.system, self.order_of(matrix), matrix.seed) for matrix in self.matrices)
        return [draw for draw, count in draws.items() if count > 1]

    def pairs(self) -> Iterator[Paired]:
        """Every two systems on every metric, over the (order, seed) that they share."""
        for (first, second), metric in itertools.product(itertools.combinations(self.systems, 2), METRICS):
            left, right = self._by_draw(first, metric), self._by_draw(second, metric)
            shared = [draw for draw in left if draw in right]
            if shared:
                yield Paired(first, second, metric, {draw: right[draw] - left[draw] for draw in shared})

    def _by_draw(self, system: str, metric: str) -> dict[tuple[str, int | None], float]:
        values = {(self.order_of(matrix), matrix.seed): matrix.metrics[metric] for matrix in self.of(system)}
        return {draw: value for draw, value in values.items() if value is not None}

    def _zero_shots(self, task: str) -> Iterator[float]:
        for matrix in self.matrices:
            if not np.isnan(score := matrix.zero_shot[matrix.tasks.index(task)]):
                yield float(score)


def comparisons_of(matrices: Sequence[AccuracyMatrix]) -> list[Comparison]:
    """One comparison for each set of tasks."""
    groups: dict[frozenset[str], list[AccuracyMatrix]] = {}
    for matrix in matrices:
        groups.setdefault(frozenset(matrix.tasks), []).append(matrix)
    return [Comparison(tuple(group)) for group in groups.values()]


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and population standard deviation of at least one value."""
    mean = math.fsum(values) / len(values)
    return Spread(
        mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)), len(values)
    )
