"""What a merge will do and why, decided before anything is written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import (
    refuse_different_base_names,
    refuse_experts,
    repeated,
    share_a_start,
    with_differing_base_names,
)
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import ModuleShape
from pamctl.adapters.matching import brought_together
from pamctl.merging.choosing_space import SMALL_ERROR
from pamctl.merging.devices import Device, chosen_device
from pamctl.merging.extras import has_full_tensors, merged_extras
from pamctl.merging.group import Group
from pamctl.merging.grouping import group_of, parts_of, resolved_recipe, spaces_of
from pamctl.merging.memory import PROGRAM
from pamctl.merging.module_plan import ModulePlan, module_plans
from pamctl.merging.recipe import Recipe, refuse_bad_options
from pamctl.merging.rehearsal import rehearse
from pamctl.merging.relation import Relation
from pamctl.merging.schedule import Schedule, cores
from pamctl.merging.survey import modules_of
from pamctl.refusal import UsageRefusal

MAX_MEMORY = 512 << 20


@dataclass(frozen=True)
class MergePlan:
    """A merge that has been checked.

    Args:
        adapters: the inputs, in the user's order.
        recipe: what was asked for, every choice resolved.
        groups: the modules that are merged alike: those that no rule is for first, if there are any.
        reasons: why each group works in its space.
        modules: each module that any input adapts.
        relation: how the factors relate, where that was measured to decide.
        extras: what the merged adapter carries besides its modules.
        schedule: how much is done at a time.
        device: where dense deltas are worked on.
        notes: what the user should know before trusting the result.
    """

    adapters: tuple[Adapter, ...]
    recipe: Recipe
    groups: tuple[Group, ...]
    reasons: tuple[str, ...]
    modules: Mapping[str, ModulePlan]
    relation: Relation | None
    extras: Mapping[str, Extra]
    schedule: Schedule
    device: Device
    notes: tuple[str, ...]

    @property
    def method(self) -> str:
        return self.recipe.method

    @property
    def weights(self) -> tuple[float, ...]:
        """One an input, in the user's order, as the recipe's own method takes them."""
        return self.recipe.weights or ()

    @property
    def space(self) -> str:
        """`factor` or `delta`, or `mixed` where rules differ in it."""
        spaces = {group.space for group in self.groups}
        return spaces.pop() if len(spaces) == 1 else "mixed"

    @property
    def reason(self) -> str:
        return self.reasons[0]

    @property
    def cross_term_error(self) -> float | None:
        """What averaging factors would get wrong, where it was measured to decide; see `Relation`."""
        return self.relation.cross_term_error if self.relation else None

    @cached_property
    def shapes(self) -> dict[str, ModuleShape]:
        """Of the result; where energy decides the rank, the largest that it may have."""
        return {module: part.shape for module, part in self.modules.items()}

    @property
    def rank(self) -> int:
        return max(shape.rank for shape in self.shapes.values())

    @property
    def compressed(self) -> bool:
        """Whether a delta is cut to a rank that may be less than its own."""
        return any(part.cut.cuts for part in self.modules.values())

    @property
    def peak_bytes(self) -> int:
        """About the most memory that the merge will take, the program itself included."""
        needs = sorted((part.need.bytes for part in self.modules.values()), reverse=True)
        at_once = sum(needs[: self.schedule.workers + 1])
        return PROGRAM + max(needs[0], min(at_once, self.schedule.most_bytes))

    @property
    def input_bytes(self) -> int:
        return sum(
            sum(shape.bytes for shape in adapter.shapes.values())
            + sum(extra.bytes for extra in adapter.extras.values())
            for adapter in self.adapters
        )

    @property
    def coverage(self) -> list[dict[str, Any]]:
        """Of each adapter how many modules are used, and how many of those every other adapter has too."""
        everywhere = set.intersection(*(set(adapter.shapes) for adapter in self.adapters))
        return [
            {
                "name": adapter.name,
                "modules": len(adapter.shapes),
                "used": len(adapter.shapes.keys() & self.modules.keys()),
                "in_every_adapter": len(everywhere),
                "covered_percent": percent(len(everywhere) / len(adapter.shapes)),
            }
            for adapter in self.adapters
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.recipe.to_table(),
            "space": self.space,
            "reason": self.reason,
            "cross_term_error_percent": percent(self.cross_term_error),
            "compressed": self.compressed,
            "device": self.device,
            "full_tensors": sum(extra.role != "lora_bias" for extra in self.extras.values()),
            "bytes_in": self.input_bytes,
            "peak_memory": self.peak_bytes,
            "coverage": self.coverage,
            "notes": list(self.notes),
            "plan": [
                {
                    "module": module,
                    "method": self.groups[part.group].method.name,
                    "space": self.groups[part.group].space,
                    "ranks": list(part.ranks),
                    "rank": part.shape.rank,
                    "bytes": part.shape.bytes,
                    "memory": part.need.bytes,
                }
                for module, part in self.modules.items()
            ],
        }


def plan_merge(
    adapters: Sequence[Adapter],
    recipe: Recipe | None = None,
    *,
    allow_base_mismatch: bool = False,
    max_memory: int = MAX_MEMORY,
    device: Device = "auto",
    streams: bool = True,
    workers: int | None = None,
) -> MergePlan:
    """Check the inputs and decide how they will be merged.

    Numbers are read only where a decision hangs on them: the fingerprints of adapters without a record, and
    the cross-term error of factors that are not known to share their start.

    Args:
        adapters: as for `merge`, as are the errors.
        max_memory: bytes for the numbers that are at work at a time.
        device: where dense deltas are worked on; `auto` takes an accelerator if there is one.
        streams: whether the result is written some rows at a time, which not every format can.
        workers: threads; by default the cores of this process.

    Raises:
        Refusal: a module that cannot be merged within `max_memory`.
    """
    recipe = recipe or Recipe()
    refuse_bad_options(recipe)
    if len(adapters) < 2:
        raise UsageRefusal(f"{len(adapters)} adapter to merge", "give two or more")
    refuse_experts(adapters)
    if not allow_base_mismatch:
        refuse_different_base_names(adapters)
    adapters = brought_together(adapters)
    shapes = modules_of(adapters)
    parts = parts_of(recipe, shapes, adapters)
    schedule = Schedule(workers or cores(), max_memory)
    spaces, relation = spaces_of(parts, adapters, schedule)
    groups = tuple(group_of(part, space, adapters) for part, (space, _) in zip(parts, spaces, strict=True))
    for group in groups:
        rehearse(group)
    modules = module_plans(groups, parts, shapes, adapters, max_memory, streams=streams)
    extras, told = merged_extras(adapters, groups, recipe.full_modules)
    error = relation.cross_term_error if relation else None
    return MergePlan(
        tuple(adapters),
        _without_idle_options(resolved_recipe(recipe, parts, groups), groups, extras),
        groups,
        tuple(reason for _, reason in spaces),
        modules,
        relation,
        extras,
        schedule,
        chosen_device(device, pays=any(group.is_dense for group in groups)),
        notes=(*_notes(adapters, groups, error), *told),
    )


def _without_idle_options(recipe: Recipe, groups: Sequence[Group], extras: Mapping[str, Extra]) -> Recipe:
    """The recipe less what nothing hangs on, as the record of the result leaves it out."""
    default = Recipe()
    return replace(
        recipe,
        seed=recipe.seed if any(group.acting.random for group in groups) else default.seed,
        full_modules=recipe.full_modules if has_full_tensors(extras) else default.full_modules,
    )


def _notes(adapters: Sequence[Adapter], groups: Sequence[Group], error: float | None) -> tuple[str, ...]:
    notes = []
    factors = any(group.space == "factor" for group in groups)
    if factors and error is not None and error > SMALL_ERROR and not share_a_start(adapters):
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
    counts = "takes no part" if all(group.leaves_out_absent for group in groups) else "counts as 0"
    for adapter in adapters:
        if only := len(adapter.shapes) - len(everywhere):
            notes.append(
                f"{only} modules of {adapter.name} are not in every adapter: one that lacks a module "
                f"{counts} there"
            )
    return tuple(notes)


def percent(share: float | None) -> float | None:
    """A share in percent, None where it is not finite."""
    return None if share is None or not math.isfinite(share) else round(100 * share, 4)
