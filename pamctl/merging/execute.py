"""Doing what a merge plan says: module by module, ahead on every core, with the record of what was merged."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import Block, ComputedModules, Float32, LoraFactors, Part
from pamctl.adapters.flattening import flattened
from pamctl.merging.cut import Kept
from pamctl.merging.devices import HOST, Place, matmul, place_on
from pamctl.merging.group import Group
from pamctl.merging.inputs import Inputs
from pamctl.merging.low_rank import padded
from pamctl.merging.methods.method import Combination, Elementwise, Projected
from pamctl.merging.plan import MergePlan
from pamctl.merging.random_numbers import Draws
from pamctl.merging.record import record
from pamctl.merging.relation import (
    Relation,
    conflicts_among,
    conflicts_in_deltas,
    conflicts_in_factors,
    cross_term,
    probed_cross_term,
)
from pamctl.merging.shares import shares
from pamctl.merging.spaces import (
    Outcome,
    clamped,
    combined,
    dense,
    merged_factor,
    projected,
    projected_tensors,
    spectral,
)
from pamctl.merging.spool import spooled
from pamctl.merging.survey import is_exact, probed
from pamctl.merging.tensors import Tensors, TensorStream, measured, merged_piece, stream_of
from pamctl.merging.truncation import retained
from pamctl.refusal import Refusal


@dataclass
class Report:
    """What the modules merged so far told.

    Args:
        relations: of each module.
        energies: of each module whose rank was cut.
        vanished: modules that came out as 0 though an input is not.
    """

    relations: dict[str, Relation] = field(default_factory=dict)
    energies: dict[str, Kept] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)

    @property
    def relation(self) -> Relation:
        return sum((self.relations[module] for module in sorted(self.relations)), Relation())

    @property
    def retained_energy(self) -> float | None:
        """The share of the squared norm that is kept where ranks were cut; None where none was."""
        return retained(self.energies) if self.energies else None


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Args:
        adapter: the merged adapter, computed module by module when it is read or written.
        report: filled in the course of that.
    """

    adapter: Adapter
    report: Report


def execute(plan: MergePlan, output: Mapping[str, Any] | None = None, *, dry_run: bool = False) -> Merged:
    """Merge as planned: the result is computed when it is written and never held whole.

    Args:
        output: how it will be written, for its record.
        dry_run: it will not be written; where energy decides ranks they stay the largest that they may be.

    Raises:
        UsageRefusal: the device of the plan is not there.
    """
    execution = Execution(plan, place_on(plan.device))
    modules = ComputedModules(plan.shapes, execution.module, blocks=execution.blocks)
    if not dry_run and any(part.cut.energy is not None for part in plan.modules.values()):
        modules = spooled(modules)
    first = plan.adapters[0]
    base_model = next((adapter.base_model for adapter in plan.adapters if adapter.base_model), None)
    denoisers = {adapter.denoiser for adapter in plan.adapters if adapter.denoiser}
    merged = Adapter(
        modules,
        record(plan, output),
        base_model,
        f"merge of {first.name}",
        plan.extras,
        denoiser=denoisers.pop() if len(denoisers) == 1 else None,
    )
    return Merged(merged, execution.report)


class Execution:
    """A plan as it is carried out.

    Each group reads its inputs in the order in which its method gets them; what a method has to know of all
    modules is measured when the first module of its group is asked for.

    Args:
        place: where dense deltas are made of the factors.
    """

    def __init__(self, plan: MergePlan, place: Place) -> None:
        self.plan, self.report, self._place = plan, Report(), place
        self._inputs = Inputs(plan.adapters)
        self._known: dict[int, Any] = {}
        self._exact = is_exact(plan.adapters)

    def module(self, module: str) -> LoraFactors:
        """One merged module, whole."""
        self._measure(self.plan.modules[module].group)
        merged = self._merged(module)
        self._inputs.check()
        return merged

    def blocks(self, order: Sequence[str]) -> Iterator[Block]:
        """Merged modules in this order; those that do not fit into memory come some rows at a time."""
        for number in {self.plan.modules[module].group for module in order}:
            self._measure(number)

        def whole(module: str) -> LoraFactors | None:
            return None if self.plan.modules[module].need.streamed else self._merged(module)

        ahead = self.plan.schedule.ahead(order, whole, lambda module: self.plan.modules[module].need.bytes)
        for module, factors in zip(order, ahead, strict=True):
            if factors is None:
                yield from self._streamed(module)
            else:
                yield Block(module, "a", factors.a)
                yield Block(module, "b", factors.b)
        self._inputs.check()

    def _measure(self, number: int) -> None:
        """Know what a group's method has to know of all its modules."""
        group = self.plan.groups[number]
        if not group.is_global or number in self._known:
            return

        def each(work: Callable[[Tensors], list[Any]]) -> Iterator[list[Any]]:
            return self.plan.schedule.ahead(
                group.modules,
                lambda module: [
                    result for tensors in self._tensors_in(group, module) for result in work(tensors)
                ],
                lambda module: self.plan.modules[module].need.bytes,
            )

        work = group.acting.work
        assert isinstance(work, Elementwise)
        weights = np.asarray(group.weights)
        self._known[number] = measured(work, TensorStream(each), weights, group.settings)

    def _read(self, module: str) -> list[LoraFactors]:
        return self._inputs.factors(module, self.plan.shapes[module])

    def _in_order(self, group: Group, factors: Sequence[LoraFactors]) -> list[LoraFactors]:
        return [factors[place] for place in group.order]

    def _merged(self, module: str) -> LoraFactors:
        part = self.plan.modules[module]
        group = self.plan.groups[part.group]
        given = self._read(module)
        self._relate(module, group, given)
        with numbers_refused(module):
            merged, kept = self._outcome(module, group, given)
        if kept is not None:
            self.report.energies[module] = kept
        if not (merged.a.any() and merged.b.any()) and any(each.a.any() and each.b.any() for each in given):
            self.report.vanished.append(module)
        if clamp := group.settings.get("clamp"):
            merged = clamped(merged, float(clamp))
        merged = replace(merged, layer=part.shape.layer)
        return merged if part.cut.energy is not None else padded(merged, part.shape.rank)

    def _outcome(self, module: str, group: Group, given: Sequence[LoraFactors]) -> Outcome:
        part, work = self.plan.modules[module], group.work
        group = group.among([i for i, place in enumerate(group.order) if part.ranks[place]])
        factors = self._in_order(group, given)
        if group.space == "factor":
            a, b = (
                merged_factor(group, tensors, weights, self._known_of(group, part.group, tensors, weights))
                for tensors, weights in zip(
                    self._tensors(group, module, factors),
                    group.weights_of([each.scale for each in factors]),
                    strict=True,
                )
            )
            return LoraFactors(a, b), None
        if isinstance(work, Combination):
            return combined(group, factors, part.cut)
        if isinstance(work, Elementwise):
            (tensors,) = self._tensors(group, module, factors)
            known = self._known_of(group, part.group, tensors, np.asarray(group.weights))
            return dense(group, tensors, known, part.cut, held=part.need.held)
        if isinstance(work, Projected):
            products, coordinates = projected_tensors(group, factors)
            tensors = self._product(group, module, products)
            known = self._known_of(group, part.group, tensors, np.asarray(group.weights))
            return projected(group, tensors, coordinates, known, part.cut)
        return spectral(group, factors, part.cut)

    def _known_of(self, group: Group, number: int, tensors: Tensors, weights: Any) -> Any:
        if group.is_global:
            return self._known[number]
        work = group.acting.work
        assert isinstance(work, Combination | Elementwise)
        return measured(work, stream_of(tensors), weights, group.settings)

    def _tensors_in(self, group: Group, module: str) -> Iterator[Tensors]:
        """The tensors of a module, read as the plan has it."""
        if self.plan.modules[module].need.streamed:
            yield from self._row_tensors(group, module)
        else:
            yield from self._tensors(group, module, self._in_order(group, self._read(module)))

    def _row_tensors(self, group: Group, module: str) -> Iterator[Tensors]:
        """a and scaled b of a module that is too large to be read whole."""
        shape = self.plan.shapes[module]
        sides: tuple[tuple[Part, tuple[int, int]], ...] = (
            ("a", (shape.rank, shape.inputs)),
            ("b", (shape.outputs, shape.rank)),
        )
        for side, size in sides:
            read = partial(self._rows_of_all, group, module, side)
            yield Tensors(size, read, self._draws(group, f"{module} {side}"))

    def _rows_of_all(self, group: Group, module: str, side: Part, rows: slice) -> list[Float32]:
        shape = self.plan.shapes[module]
        return [self._inputs.rows(place, module, side, rows, shape) for place in group.order]

    def _tensors(self, group: Group, module: str, factors: Sequence[LoraFactors]) -> Iterator[Tensors]:
        """The tensors whose elements the method merges: a and scaled b, or the one in its coordinates."""
        if group.space == "factor":
            apart = factors if group.is_square_root else [each.folded() for each in factors]
            yield self._held(group, module, "a", [each.a for each in apart])
            yield self._held(group, module, "b", [each.b for each in apart])
        elif isinstance(group.work, Projected):
            yield self._product(group, module, projected_tensors(group, factors)[0])
        else:
            yield self._product(group, module, [each.folded() for each in factors])

    def _held(self, group: Group, module: str, name: str, values: Sequence[Float32]) -> Tensors:
        rows, columns = values[0].shape
        return Tensors(
            (rows, columns),
            lambda rows: [each[rows] for each in values],
            self._draws(group, f"{module} {name}"),
        )

    def _product(self, group: Group, module: str, products: Sequence[LoraFactors]) -> Tensors:
        shape = (products[0].b.shape[0], products[0].a.shape[1])
        present = tuple(i for i, each in enumerate(products) if each.rank) or (0,)
        some = group.is_global and len(present) < len(products)
        put = self._place.put
        kept = [(put(each.b), put(each.a)) for each in products if not some or each.rank]
        draws = self._draws(group, f"{module} delta")
        return Tensors(
            shape,
            lambda rows: [matmul(b[rows], a) for b, a in kept],
            [draws[i] for i in present] if some and draws else draws,
            present if some else None,
            self._place.elements,
        )

    def _draws(self, group: Group, tensor: str) -> list[Draws]:
        if not group.acting.random:
            return []
        adapters = [self.plan.adapters[place] for place in group.order]
        named = flattened(tensor)  # as it is called in a file that knows no other names
        return [Draws(self.plan.recipe.seed, adapter.claimed_fingerprint, named) for adapter in adapters]

    def _relate(self, module: str, group: Group, given: Sequence[LoraFactors]) -> None:
        """Record how the inputs relate in this module, as far as the plan has not measured it."""
        folded, shape = [each.folded() for each in given], self.plan.shapes[module]
        ranks = [each.rank for each in given]

        def read(place: int, part: Part, rows: slice) -> Float32:
            return (folded[place].a if part == "a" else folded[place].b)[rows]

        relation = Relation(math.nan, 0.0)
        if self.plan.relation is not None:
            relation = Relation()
        elif len(set(ranks)) == 1:
            if self._exact:
                relation = Relation(*cross_term(folded, self._mean()))
            else:
                relation = Relation(*probed_cross_term(read, shape, ranks, self._mean()))
        if group.space == "factor":
            counts = conflicts_in_factors(folded)
        else:
            counts = conflicts_in_deltas(read, module, shape, len(given))
        self.report.relations[module] = replace(relation, weights=counts[0], conflicts=counts[1])

    def _mean(self) -> Sequence[float]:
        """The weights of the mean that the cross term is about, in the order of the inputs as given."""
        group = self.plan.groups[0]
        if not group.method.shares:
            return shares(None, len(group.order))
        return group.in_given_order(group.weights)

    def _streamed(self, module: str) -> Iterator[Block]:
        """A merged module some rows at a time, its inputs read likewise."""
        part = self.plan.modules[module]
        group, shape = self.plan.groups[part.group], part.shape

        def read(place: int, factor: Part, rows: slice) -> Float32:
            return self._inputs.rows(place, module, factor, rows, shape)

        for place in group.order:
            self._inputs.digest(place, module)
        relation = Relation() if self.plan.relation else probed(self._inputs, module, shape, self._mean())
        self.report.relations[module] = relation
        if group.space == "factor":
            yield from self._streamed_factors(module, group)
        else:
            counts = conflicts_in_deltas(read, module, shape, len(group.order))
            self.report.relations[module] += Relation(0.0, 0.0, *counts)
            yield from self._streamed_sum(module, group, read)

    def _streamed_factors(self, module: str, group: Group) -> Iterator[Block]:
        number, work = self.plan.modules[module].group, group.work
        assert isinstance(work, Combination | Elementwise)
        weights = np.asarray(group.weights, np.float64)
        sides: tuple[Part, ...] = ("a", "b")
        for side, tensors in zip(sides, self._row_tensors(group, module), strict=True):
            known = self._known_of(group, number, tensors, weights)
            for _, piece in tensors.pieces():
                self.report.relations[module] += Relation(0.0, 0.0, *conflicts_among(piece.blocks))
                yield Block(module, side, merged_piece(work, piece, weights, group.settings, known))

    def _streamed_sum(
        self, module: str, group: Group, read: Callable[[int, Part, slice], Float32]
    ) -> Iterator[Block]:
        """Factors side by side: every A one after the other, then rows of all B, times the coefficients."""
        shape = self.plan.shapes[module]
        assert isinstance(group.work, Combination)
        coefficients = group.work.coefficients(None, np.asarray(group.weights), group.settings)
        for place in group.order:
            rank = self.plan.modules[module].ranks[place]
            for rows in _strips(rank, shape.inputs):
                yield Block(module, "a", read(place, "a", rows))
        for rows in _strips(shape.outputs, shape.rank):
            strips = [
                read(place, "b", rows) * np.float32(coefficient)
                for place, coefficient in zip(group.order, coefficients, strict=True)
            ]
            yield Block(module, "b", np.concatenate(strips, axis=1))


@contextmanager
def numbers_refused(module: str) -> Iterator[None]:
    """Refuse a module whose numbers leave what float32 can hold in the course of its merge."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except ValueError as fault:  # numpy's LinAlgError is one, and so is what the kernels raise
        if not isinstance(fault, np.linalg.LinAlgError) and "NaN" not in str(fault):
            raise
        raise Refusal(
            f"{module} came out as NaN or Inf, so nothing is written",
            "check the weights and the inputs' scale",
        ) from fault


def _strips(rows: int, columns: int) -> Iterator[slice]:
    step = max(HOST.elements // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
