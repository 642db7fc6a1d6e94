"""What a merge will do and why, decided before anything is written."""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

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
from pamctl.merging.choosing_space import SMALL_ERROR, decided_by_error, decided_without_numbers
from pamctl.merging.cut import Cut
from pamctl.merging.devices import Device, chosen_device
from pamctl.merging.extras import has_full_tensors, merged_extras
from pamctl.merging.group import Group
from pamctl.merging.inputs import Inputs
from pamctl.merging.memory import PROGRAM, Need, need_of
from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import Combination, Elementwise, Method, Settings, Space
from pamctl.merging.methods.settings import resolved
from pamctl.merging.recipe import Recipe, Rule, refuse_bad_options
from pamctl.merging.rehearsal import rehearse
from pamctl.merging.relation import Relation
from pamctl.merging.schedule import Schedule, cores
from pamctl.merging.shares import shares
from pamctl.merging.survey import modules_of, surveyed
from pamctl.refusal import Refusal, UsageRefusal

MAX_MEMORY = 512 << 20


@dataclass(frozen=True)
class ModulePlan:
    """How one module is merged.

    Args:
        group: which of the plan's groups it is in.
        ranks: of the inputs, 0 where one does not have it.
        shape: of the result; where energy decides, the rank is the largest that it may have.
        cut: how it gets that rank.
        need: what it takes.
    """

    group: int
    ranks: tuple[int, ...]
    shape: ModuleShape
    cut: Cut
    need: Need


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


@dataclass(frozen=True)
class _Wanted:
    """A part of the recipe with its method and parameters, before its space is known."""

    recipe: Recipe
    method: Method
    settings: Settings
    weights: tuple[float, ...]
    modules: tuple[str, ...]

    @property
    def equal_weights(self) -> bool:
        return self.method.shares or all(weight == 1.0 for weight in self.weights)


def plan_merge(
    adapters: Sequence[Adapter],
    recipe: Recipe | None = None,
    *,
    allow_base_mismatch: bool = False,
    max_memory: int = MAX_MEMORY,
    device: Device = "auto",
    workers: int | None = None,
) -> MergePlan:
    """Check the inputs and decide how they will be merged.

    Numbers are read only where a decision hangs on them: the fingerprints of adapters without a record, and
    the cross-term error of factors that are not known to share their start.

    Args:
        adapters: as for `merge`, as are the errors.
        max_memory: bytes for the numbers that are at work at a time.
        device: where dense deltas are worked on; `auto` takes an accelerator if there is one.
        workers: threads; by default the cores of this process.

    Raises:
        Refusal: a module that cannot be merged within `max_memory`.
    """
    recipe = recipe or Recipe()
    refuse_bad_options(recipe)
    if len(adapters) < 2:
        raise UsageRefusal(f"{len(adapters)} adapter to merge", "give two or more")
    if not allow_base_mismatch:
        refuse_different_base_names(adapters)
    adapters = brought_together(adapters)
    shapes = modules_of(adapters)
    wanted = [_wanted(part, modules, adapters) for part, modules in _parts(recipe, shapes)]
    schedule = Schedule(workers or cores(), max_memory)
    spaces, relation = _spaces(wanted, adapters, schedule)
    groups = tuple(_group(part, space, adapters) for part, (space, _) in zip(wanted, spaces, strict=True))
    for group in groups:
        rehearse(group)
    modules = _module_plans(groups, wanted, shapes, adapters, max_memory)
    extras, told = merged_extras(adapters, groups, recipe.full_modules)
    error = relation.cross_term_error if relation else None
    return MergePlan(
        tuple(adapters),
        _without_idle_options(_resolved(recipe, wanted, groups), groups, extras),
        groups,
        tuple(reason for _, reason in spaces),
        modules,
        relation,
        extras,
        schedule,
        chosen_device(device, pays=any(group.is_dense for group in groups)),
        notes=(*_notes(adapters, groups, error), *told),
    )


def _parts(recipe: Recipe, shapes: Mapping[str, ModuleShape]) -> list[tuple[Recipe, tuple[str, ...]]]:
    """The recipe of the modules that no rule is for, if there are any, and those of the rules."""
    left = list(shapes)
    parts = []
    for rule in recipe.rules:
        matched = tuple(module for module in left if _matches(module, rule))
        if not matched:
            patterns = ", ".join(rule.modules)
            raise UsageRefusal(
                f"no module is left for the rule of {patterns}",
                f"the modules are named as {next(iter(shapes))}; the first rule that matches one counts",
            )
        parts.append((recipe.for_rule(rule), matched))
        left = [module for module in left if module not in {*matched}]
    return [(replace(recipe, rules=()), tuple(left)), *parts] if left else parts


def _matches(module: str, rule: Rule) -> bool:
    return any(fnmatch.fnmatchcase(module, pattern) for pattern in rule.modules)


def _wanted(recipe: Recipe, modules: tuple[str, ...], adapters: Sequence[Adapter]) -> _Wanted:
    method, count = method_named(recipe.method), len(adapters)
    settings = dict(resolved(method, recipe.variant, recipe.parameters, count))
    if count < method.least or (method.most is not None and count > method.most):
        takes = f"exactly {method.least}" if method.least == method.most else f"at least {method.least}"
        raise UsageRefusal(f"{method.name} takes {takes} adapters, not {count}", "choose another method")
    if settings.get("count", 0) is None:
        record = adapters[0].provenance
        settings["count"] = len(record.tasks) or None if record else None
    inner = settings.get("inner")
    takes_shares = method_named(inner).shares if inner else method.shares
    return _Wanted(
        recipe,
        method,
        settings,
        shares(recipe.weights, count) if takes_shares else _as_given(recipe.weights, count),
        modules,
    )


def _as_given(weights: Sequence[float] | None, adapters: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * adapters
    if len(weights) != adapters:
        raise UsageRefusal(f"{len(weights)} weights for {adapters} adapters", "give one weight an adapter")
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageRefusal("a weight is not finite", "give numbers")
    return tuple(float(weight) for weight in weights)


def _spaces(
    wanted: Sequence[_Wanted], adapters: Sequence[Adapter], schedule: Schedule
) -> tuple[list[tuple[Space, str]], Relation | None]:
    """The space of each part with its reason, and how the factors relate where that had to be known."""
    mismatches = [factor_mismatch(adapters, part.modules) for part in wanted]
    count = len(adapters)
    mean = wanted[0].weights if wanted[0].method.shares else shares(None, count)
    relation = None
    if any(adapter.is_unknown for adapter in adapters):
        relate = any(map(_may_hang_on_numbers, wanted, mismatches))
        relation = surveyed(adapters, mean, schedule, relate=relate)
    found = [
        decided_without_numbers(
            part.method,
            part.settings,
            part.recipe.space,
            adapters,
            mismatch,
            equal_weights=part.equal_weights,
        )
        for part, mismatch in zip(wanted, mismatches, strict=True)
    ]
    undecided = any(each in (None, ("factor", "asked for")) for each in found)
    unsure = undecided and not share_a_start(adapters)
    if unsure and relation is None:
        relation = surveyed(adapters, mean, schedule, relate=True)
    error = relation.cross_term_error if relation else None
    return [each or decided_by_error(error) for each in found], relation


def _may_hang_on_numbers(part: _Wanted, mismatch: str | None) -> bool:
    return mismatch is None and "factor" in part.method.spaces and part.recipe.space != "delta"


def _group(part: _Wanted, space: Space, adapters: Sequence[Adapter]) -> Group:
    """The part with its inputs in the order in which the method gets them.

    Where order means nothing to it, the inputs decide on one, so that any order gives the same bits.
    """
    group = Group(part.method, part.settings, part.weights, tuple(range(len(adapters))), space, part.modules)
    if not (part.method.symmetric and group.acting.symmetric):
        return group
    each = {name: value for name, value in part.settings.items() if isinstance(value, tuple)}
    order = sorted(
        group.order,
        key=lambda i: (
            adapters[i].claimed_fingerprint,
            part.weights[i],
            [values[i] for values in each.values()],
        ),
    )
    given = part.recipe.weights or (1.0,) * len(adapters)
    in_order = [given[i] for i in order]
    return replace(
        group,
        settings={
            **part.settings,
            **{name: tuple(values[i] for i in order) for name, values in each.items()},
        },
        weights=shares(in_order, len(order)) if group.acting.shares else tuple(in_order),
        order=tuple(order),
    )


def _module_plans(
    groups: Sequence[Group],
    wanted: Sequence[_Wanted],
    shapes: Mapping[str, ModuleShape],
    adapters: Sequence[Adapter],
    max_memory: int,
) -> dict[str, ModulePlan]:
    inputs, found = Inputs(adapters), dict[str, ModulePlan]()
    for number, (group, part) in enumerate(zip(groups, wanted, strict=True)):
        for module in group.modules:
            shape, ranks = shapes[module], inputs.ranks(module)
            exact = _exact_rank(group, shape, ranks)
            cut = _cut(group, part.recipe, ranks, exact)
            rank = min(cut.rank or exact, exact)
            need = need_of(group, cut, shape, ranks, rank, max_memory)
            if need.bytes > max_memory:
                raise Refusal(
                    f"{module} takes {size(need.bytes)} to merge by {group.method.name}, more than the "
                    f"{size(max_memory)} of --max-memory",
                    f"give at least --max-memory {math.ceil(need.bytes / 2**20)}M",
                )
            dtype = computed(adapter.shapes[module].dtype for adapter in adapters if module in adapter.shapes)
            result = replace(shape, rank=rank, dtype=dtype, scale=1.0)
            found[module] = ModulePlan(number, tuple(ranks), result, cut, need)
    return dict(sorted(found.items()))


def _exact_rank(group: Group, shape: ModuleShape, ranks: Sequence[int]) -> int:
    """The rank with which a result loses nothing."""
    if group.space == "factor":
        return ranks[0]
    if isinstance(group.work, Combination):
        return sum(ranks)
    fewest = min(shape.inputs, shape.outputs)
    return fewest if isinstance(group.work, Elementwise) else min(sum(ranks), fewest)


def _cut(group: Group, recipe: Recipe, ranks: Sequence[int], exact: int) -> Cut:
    asked = recipe.rank is not None or recipe.energy is not None
    rank = max(ranks) if recipe.rank == "max" else recipe.rank
    assert not isinstance(rank, str)
    if group.method.exact_rank and asked:
        raise UsageRefusal(f"{group.method.name} keeps every rank", "use linear to choose one")
    if group.space == "factor":
        if recipe.energy is not None or rank not in (None, exact):
            chosen = "a share of their energy" if rank is None else rank
            raise UsageRefusal(
                f"merged factors have rank {exact}, not {chosen}", "add --space delta to choose the rank"
            )
        return Cut()
    if not asked and (isinstance(group.work, Elementwise) or group.method.input_rank):
        rank = max(ranks)
    return Cut(rank, recipe.energy, recipe.svd)


def _resolved(recipe: Recipe, wanted: Sequence[_Wanted], groups: Sequence[Group]) -> Recipe:
    """The recipe with every choice that was left open, as it was made."""
    parts = [_resolved_part(part, group) for part, group in zip(wanted, groups, strict=True)]
    rules = parts[len(parts) - len(recipe.rules) :]
    return replace(
        parts[0],
        rules=tuple(
            Rule(
                rule.modules,
                **{name: getattr(part, name) for name in ("method", "variant", "weights", "space", "rank")},
                energy=part.energy,
                svd=part.svd,
                parameters=part.parameters,
            )
            for rule, part in zip(recipe.rules, rules, strict=True)
        ),
    )


def _without_idle_options(recipe: Recipe, groups: Sequence[Group], extras: Mapping[str, Extra]) -> Recipe:
    """The recipe less what nothing hangs on, as the record of the result leaves it out."""
    default = Recipe()
    return replace(
        recipe,
        svd=recipe.svd if any(group.is_dense for group in groups) else default.svd,
        seed=recipe.seed if any(group.acting.random for group in groups) else default.seed,
        full_modules=recipe.full_modules if has_full_tensors(extras) else default.full_modules,
    )


def _resolved_part(part: _Wanted, group: Group) -> Recipe:
    settings = dict(part.settings)
    variant = settings.pop("variant", None)
    return replace(
        part.recipe,
        variant=variant,
        weights=tuple(group.in_given_order(group.weights)),
        space=group.space,
        parameters=settings,
        rules=(),
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


def size(bytes: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{bytes / 2**20:,.0f} MiB"


def percent(share: float | None) -> float | None:
    """A share in percent, None where it is not finite."""
    return None if share is None or not math.isfinite(share) else round(100 * share, 4)
