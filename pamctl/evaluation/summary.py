"""How sequences are compared: mean and spread of each metric over orders and seeds, paired differences."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pamctl.evaluation.matrix import DEFINED, AccuracyMatrix
from pamctl.evaluation.metrics import FWT, FWT_VARIANTS, METRICS
from pamctl.training.methods import METHODS

DDOF = 0
ANY_ORDER = "any order"


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

    def spread_in(self, order: str) -> Spread | None:
        """Mean and spread over the seeds of one order; None if no difference is of it."""
        differences = [value for (label, _), value in self.differences.items() if label == order]
        return spread_of(differences) if differences else None


@dataclass(frozen=True)
class Comparison:
    """Matrices over one set of tasks; only these are averaged together.

    What was learned in no sequence belongs to every order, since its scores are the same in each; n counts
    it once.

    Attributes:
        fwt: the variant of FWT that its tables show.
    """

    matrices: tuple[AccuracyMatrix, ...]
    fwt: str = FWT

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the first sequence."""
        return (self._sequences or self.matrices)[0].tasks

    @cached_property
    def systems(self) -> tuple[str, ...]:
        """Every method (and run) that was compared, in the order of `METHODS`, then by the alphabet."""
        return in_order_of_methods(matrix.system for matrix in self.matrices)

    @cached_property
    def sequential(self) -> tuple[str, ...]:
        """The systems that learn one task after another."""
        known = {matrix.system for matrix in self._sequences}
        return tuple(system for system in self.systems if system in known)

    @cached_property
    def orders(self) -> tuple[str, ...]:
        """Every order of a sequence, as `order_of` names it."""
        return tuple(dict.fromkeys(self.order_of(matrix) for matrix in self._sequences or self.matrices))

    @cached_property
    def _sequences(self) -> tuple[AccuracyMatrix, ...]:
        return tuple(matrix for matrix in self.matrices if matrix.kind == "sequence")

    def order_of(self, matrix: AccuracyMatrix) -> str:
        """The label of a matrix's order; where the results give none `order 1` and so on, or `any order`."""
        if matrix.order or matrix.kind != "sequence":
            return matrix.order or ANY_ORDER
        return f"order {self._unnamed_orders.index(matrix.tasks) + 1}"

    @cached_property
    def _unnamed_orders(self) -> list[tuple[str, ...]]:
        return sorted({matrix.tasks for matrix in self._sequences if matrix.order is None})

    def of(self, system: str, order: str | None = None) -> list[AccuracyMatrix]:
        """The matrices of one system; of one order if it is given, which what is in no sequence always is."""
        matrices = self._by_system.get(system, [])
        if order is None:
            return matrices
        of_order = [matrix for matrix in matrices if self.order_of(matrix) == order]
        return of_order or [matrix for matrix in matrices if matrix.kind != "sequence"]

    @cached_property
    def _by_system(self) -> dict[str, list[AccuracyMatrix]]:
        found: dict[str, list[AccuracyMatrix]] = {}
        for matrix in self.matrices:
            found.setdefault(matrix.system, []).append(matrix)
        return found

    def metrics_of(self, matrix: AccuracyMatrix) -> dict[str, float | None]:
        """Every metric of a matrix by name, FWT in the variant that is shown."""
        return {**matrix.metrics, "FWT": matrix.forward_transfers[self.fwt]}

    def defines(self, system: str, metric: str) -> bool:
        """Whether the metric exists for a system: that no task is learned after another leaves out some."""
        kinds = {"apart" if len(self.tasks) == 1 else matrix.kind for matrix in self.of(system)}
        return any(metric in DEFINED[kind] for kind in kinds)

    def spread(self, system: str, metric: str, order: str | None = None) -> Spread | None:
        """Mean and spread of a metric over the sequences that have it; None if none has."""
        return _spread_of_known(self.metrics_of(matrix)[metric] for matrix in self.of(system, order))

    def forward_transfers(self, system: str) -> dict[str, Spread | None]:
        """Mean and spread of every variant of FWT, by name."""
        return {
            variant: _spread_of_known(matrix.forward_transfers[variant] for matrix in self.of(system))
            for variant in FWT_VARIANTS
        }

    def final_score(self, system: str, task: str) -> Spread | None:
        """Mean and spread of one task's score after the last task."""
        scores = [float(matrix.after[-1, matrix.tasks.index(task)]) for matrix in self.of(system)]
        return _spread_of_known(None if math.isnan(score) else score for score in scores)

    def zero_shot(self) -> dict[str, float | None]:
        """The base's score on each task; None where no result tells."""
        return {task: next(self._zero_shots(task), None) for task in self.tasks}

    def forgetting(self, system: str) -> list[Spread | None]:
        """F_t for t = 2..T over the sequences that have it."""
        columns = zip(*(matrix.forgetting for matrix in self.of(system)), strict=True)
        return [_spread_of_known(column) for column in columns]

    def forgetting_from_best(self, system: str) -> list[Spread | None]:
        """The same from the best state since a task was learned."""
        columns = zip(*(matrix.forgetting_from_best for matrix in self.of(system)), strict=True)
        return [_spread_of_known(column) for column in columns]

    def repeated(self) -> list[tuple[str, str, int | None]]:
        """Every (system, order, seed) that more than one sequence has."""
        draws = Counter((matrix.system, self.order_of(matrix), matrix.seed) for matrix in self.matrices)
        return [draw for draw, count in draws.items() if count > 1]

    def alike(self) -> Mapping[tuple[str, ...], int]:
        """Systems that made the very same adapters of several tasks, and in how many (order, seed)."""
        found: dict[object, list[str]] = {}
        for matrix in self._sequences:
            if len(matrix.adapters) > 1 and None not in matrix.adapters:
                draw = (matrix.adapters, self.order_of(matrix), matrix.seed)
                found.setdefault(draw, []).append(matrix.system)
        systems = (in_order_of_methods(names) for names in found.values())
        return Counter(names for names in systems if len(names) > 1)

    def pairs(self, against: str | None = None) -> Iterator[Paired]:
        """Every other system minus `against`, or without it every two, on every metric.

        The differences are over the (order, seed) that both have.
        """
        two = list(itertools.combinations(self.systems, 2))
        if against is not None:
            two = [(against, system) for system in self.systems if system != against]
        for (first, second), metric in itertools.product(two, METRICS):
            left, right = self._by_draw(first, metric), self._by_draw(second, metric)
            shared = [draw for draw in left if draw in right]
            if shared:
                yield Paired(first, second, metric, {draw: right[draw] - left[draw] for draw in shared})

    def _by_draw(self, system: str, metric: str) -> dict[tuple[str, int | None], float]:
        values = {
            (order, matrix.seed): self.metrics_of(matrix)[metric]
            for order in self.orders
            for matrix in self.of(system, order)
        }
        return {draw: value for draw, value in values.items() if value is not None}

    def _zero_shots(self, task: str) -> Iterator[float]:
        for matrix in self.matrices:
            if not np.isnan(score := matrix.zero_shot[matrix.tasks.index(task)]):
                yield float(score)


def comparisons_of(matrices: Sequence[AccuracyMatrix], fwt: str = FWT) -> list[Comparison]:
    """One comparison for each set of tasks, which shows that variant of FWT."""
    groups: dict[frozenset[str], list[AccuracyMatrix]] = {}
    for matrix in matrices:
        groups.setdefault(frozenset(matrix.tasks), []).append(matrix)
    return [Comparison(tuple(group), fwt) for group in groups.values()]


def in_order_of_methods(systems: Iterable[str]) -> tuple[str, ...]:
    """Systems, each once: those of `METHODS` in its order, its runs behind each, then by the alphabet."""
    known = {method: place for place, method in enumerate(METHODS)}

    def rank(system: str) -> tuple[int, str]:
        return known.get(system.partition(" (")[0], len(known)), system

    return tuple(sorted(set(systems), key=rank))


def _spread_of_known(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread_of(known) if known else None


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and population standard deviation of at least one value."""
    mean = math.fsum(values) / len(values)
    return Spread(
        mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)), len(values)
    )
