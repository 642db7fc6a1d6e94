"""What a merge will do and why, decided before anything is written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import (
    factor_mismatch,
    refuse_different_base_names,
    repeated,
    share_a_start,
    with_differing_base_names,
)
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import ModuleShape, computed
from pamctl.adapters.matching import brought_together
from pamctl.merging.average import shares
from pamctl.merging.extras import FullModules, merged_extras
from pamctl.merging.low_rank import concatenate, cross_term, squared_norm
from pamctl.refusal import Refusal, UsageRefusal

Method = Literal["average"]
Space = Literal["factor", "delta"]
SMALL_ERROR = 0.01  # cross-term error up to which averaging factors is as good as averaging deltas


@dataclass(frozen=True)
class MergePlan:
    """A merge that has been checked.

    Args:
        adapters: the inputs, in order.
        method: the name of the method.
        weights: one an adapter, summing to 1.
        space: what is averaged.
        reason: why this space.
        cross_term_error: norm of mean(delta) - mean(b) mean(a) over the norm of mean(delta), all modules
            together; None where the factors do not fit element by element.
        rank: the rank of the result.
        compressed: whether the delta is truncated to that rank.
        full_modules: what full tensors that differ become.
        extras: what the merged adapter carries besides its modules.
        notes: what the user should know before trusting the result.
    """

    adapters: tuple[Adapter, ...]
    method: str
    weights: tuple[float, ...]
    space: Space
    reason: str
    cross_term_error: float | None
    rank: int
    compressed: bool
    full_modules: FullModules
    extras: Mapping[str, Extra]
    notes: tuple[str, ...]

    @cached_property
    def exact_shapes(self) -> dict[str, ModuleShape]:
        """Every module that any of the adapters adapts, as it is before truncation."""
        given: dict[str, list[ModuleShape]] = {}
        for adapter in self.adapters:
            for module, shape in adapter.shapes.items():
                given.setdefault(module, []).append(shape)
        return {module: self._merged_shape(shapes) for module, shapes in sorted(given.items())}

    def _merged_shape(self, shapes: Sequence[ModuleShape]) -> ModuleShape:
        rank = shapes[0].rank if self.space == "factor" else sum(shape.rank for shape in shapes)
        return replace(shapes[0], rank=rank, dtype=computed(shape.dtype for shape in shapes), scale=1.0)

    @property
    def coverage(self) -> list[dict[str, Any]]:
        """Of each adapter how many modules are used, and how many of those every other adapter has too."""
        everywhere = set.intersection(*(set(adapter.shapes) for adapter in self.adapters))
        return [
            {
                "name": adapter.name,
                "modules": len(adapter.shapes),
                "used": len(adapter.shapes.keys() & self.exact_shapes.keys()),
                "in_every_adapter": len(everywhere),
                "covered_percent": _percent(len(everywhere) / len(adapter.shapes)),
            }
            for adapter in self.adapters
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "weights": list(self.weights),
            "space": self.space,
            "reason": self.reason,
            "cross_term_error_percent": _percent(self.cross_term_error),
            "compressed": self.compressed,
            "full_modules": self.full_modules,
            "full_tensors": sum(extra.role != "lora_bias" for extra in self.extras.values()),
            "coverage": self.coverage,
            "notes": list(self.notes),
        }


def plan_merge(
    adapters: Sequence[Adapter],
    method: str = "average",
    weights: Sequence[float] | None = None,
    space: Space | Literal["auto"] = "auto",
    rank: int | None = None,
    full_modules: FullModules = "refuse",
    *,
    allow_base_mismatch: bool = False,
) -> MergePlan:
    """Check the inputs and decide how they will be merged; arguments and errors are those of `merge`."""
    _refuse_options(adapters, method, space, rank, full_modules)
    if not allow_base_mismatch:
        refuse_different_base_names(adapters)
    adapters = brought_together(adapters)
    normalised = shares(weights, len(adapters))
    extras, told = merged_extras(adapters, normalised, full_modules)
    mismatch = factor_mismatch(adapters)
    error = None if mismatch else cross_term_error(adapters, normalised)
    chosen, reason = _choose_space(adapters, space, mismatch, error)
    if chosen == "factor":
        full = adapters[0].rank
        if rank not in (None, full):
            raise UsageRefusal(
                f"averaged factors have rank {full}, not {rank}", "add --space delta to choose the rank"
            )
    else:
        full = _largest_summed_rank(adapters)
    return MergePlan(
        tuple(adapters),
        method,
        normalised,
        chosen,
        reason,
        error,
        rank=min(rank or full, full),
        compressed=chosen == "delta" and rank is not None,
        full_modules=full_modules,
        extras=extras,
        notes=(*_notes(adapters, chosen, error), *told),
    )


def cross_term_error(adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """How far the mean of the factors is from that of the deltas, relative to it, over all modules."""
    wrong = right = 0.0
    for module in adapters[0].shapes:
        factors = [adapter.modules[module].folded() for adapter in adapters]
        wrong += squared_norm(cross_term(factors, weights))
        right += squared_norm(concatenate(factors, weights))
    if wrong == 0:
        return 0.0
    return math.sqrt(wrong / right) if right else math.inf


def _refuse_options(
    adapters: Sequence[Adapter], method: str, space: str, rank: int | None, full_modules: str
) -> None:
    if len(adapters) < 2:
        raise UsageRefusal(f"{len(adapters)} adapter to merge", "give two or more")
    if method not in get_args(Method):
        raise UsageRefusal(f"method is {method!r}", f"choose one of {', '.join(get_args(Method))}")
    if space not in ("auto", *get_args(Space)):
        raise UsageRefusal(f"space is {space!r}", f"choose one of auto, {', '.join(get_args(Space))}")
    if full_modules not in get_args(FullModules):
        choices = ", ".join(get_args(FullModules))
        raise UsageRefusal(f"full_modules is {full_modules!r}", f"choose one of {choices}")
    if rank is not None and rank < 1:
        raise UsageRefusal(f"rank is {rank}", "give a rank of at least 1")


def _choose_space(
    adapters: Sequence[Adapter], space: str, mismatch: str | None, error: float | None
) -> tuple[Space, str]:
    if space == "delta":
        return "delta", "asked for"
    if error is None:
        if space == "factor":
            raise Refusal(f"the factors cannot be averaged: {mismatch}", "use --space delta")
        return "delta", f"the factors do not fit: {mismatch}"
    if space == "factor":
        return "factor", "asked for"
    if len(repeated(adapters)) == len(adapters) - 1:
        return "factor", "the adapters are equal"
    if share_a_start(adapters):
        return "factor", "the adapters share their start, by their records"
    if error <= SMALL_ERROR:
        return "factor", f"the cross-term error is at most {100 * SMALL_ERROR:g} %"
    return "delta", "no shared start is recorded, and averaged factors would be off by the cross-term error"


def _largest_summed_rank(adapters: Sequence[Adapter]) -> int:
    summed: dict[str, int] = {}
    for adapter in adapters:
        for module, shape in adapter.shapes.items():
            summed[module] = summed.get(module, 0) + shape.rank
    return max(summed.values())


def _notes(adapters: Sequence[Adapter], space: Space, error: float | None) -> tuple[str, ...]:
    notes = []
    if space == "factor" and error is not None and error > SMALL_ERROR and not share_a_start(adapters):
        notes.append(f"averaged factors are off by {100 * error:.4g} %: --space delta is exact")
    for first, other in repeated(adapters):
        notes.append(f"{other.name} is equal to {first.name}: the same adapter counts twice")
    if differing := with_differing_base_names(adapters):
        one, two = differing
        notes.append(
            f"{one.name} is of {one.base_model} and {two.name} of {two.base_model}: "
            "no fingerprint tells whether these base models differ"
        )
    everywhere = set.intersection(*(set(adapter.shapes) for adapter in adapters))
    for adapter in adapters:
        if only := len(adapter.shapes) - len(everywhere):
            notes.append(
                f"{only} modules of {adapter.name} are not in every adapter: where absent they count as 0"
            )
    return tuple(notes)


def _percent(share: float | None) -> float | None:
    return None if share is None or not math.isfinite(share) else round(100 * share, 4)
