"""The recipe's parts, for the modules of each rule and for all others, and the space in which each works."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import factor_mismatch, share_a_start
from pamctl.adapters.factors import ModuleShape
from pamctl.merging.choosing_space import decided_by_error, decided_without_numbers
from pamctl.merging.group import Group
from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import Method, Settings, Space
from pamctl.merging.methods.settings import resolved
from pamctl.merging.recipe import Recipe, Rule
from pamctl.merging.relation import Relation
from pamctl.merging.schedule import Schedule
from pamctl.merging.shares import LARGEST, shares
from pamctl.merging.survey import surveyed
from pamctl.refusal import UsageRefusal


@dataclass(frozen=True)
class RecipePart:
    """A part of the recipe with its method and parameters, before its space is known."""

    recipe: Recipe
    method: Method
    settings: Settings
    weights: tuple[float, ...]
    modules: tuple[str, ...]

    @property
    def equal_weights(self) -> bool:
        return self.method.shares or all(weight == 1.0 for weight in self.weights)

    def keeps_rank_of(self, adapter: Adapter) -> bool:
        """Whether a result with the ranks of an adapter is one of the rank that is asked for."""
        ranks = {adapter.shapes[module].rank for module in self.modules if module in adapter.shapes}
        return self.recipe.energy is None and (
            self.recipe.rank in (None, "max") or ranks == {self.recipe.rank}
        )


def parts_of(
    recipe: Recipe, shapes: Mapping[str, ModuleShape], adapters: Sequence[Adapter]
) -> list[RecipePart]:
    """The part of the modules that no rule is for, if there are any, and those of the rules.

    Raises:
        UsageRefusal: a rule matches no module that is left for it, or a method's options do not fit.
    """
    return [_part(part, modules, adapters) for part, modules in _divided(recipe, shapes)]


def _divided(recipe: Recipe, shapes: Mapping[str, ModuleShape]) -> list[tuple[Recipe, tuple[str, ...]]]:
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


def _part(recipe: Recipe, modules: tuple[str, ...], adapters: Sequence[Adapter]) -> RecipePart:
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
    return RecipePart(
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
    if not all(abs(weight) <= LARGEST for weight in weights):
        listed = ",".join(f"{weight:g}" for weight in weights)
        raise UsageRefusal(f"weights {listed} are not all finite in float32", "give smaller numbers")
    return tuple(float(weight) for weight in weights)


def spaces_of(
    wanted: Sequence[RecipePart], adapters: Sequence[Adapter], schedule: Schedule
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
            keeps_rank=part.keeps_rank_of(adapters[0]),
        )
        for part, mismatch in zip(wanted, mismatches, strict=True)
    ]
    undecided = any(each in (None, ("factor", "asked for")) for each in found)
    unsure = undecided and not share_a_start(adapters)
    if unsure and relation is None:
        relation = surveyed(adapters, mean, schedule, relate=True)
    error = relation.cross_term_error if relation else None
    return [each or decided_by_error(error) for each in found], relation


def _may_hang_on_numbers(part: RecipePart, mismatch: str | None) -> bool:
    return mismatch is None and "factor" in part.method.spaces and part.recipe.space != "delta"


def group_of(part: RecipePart, space: Space, adapters: Sequence[Adapter]) -> Group:
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


def resolved_recipe(recipe: Recipe, wanted: Sequence[RecipePart], groups: Sequence[Group]) -> Recipe:
    """The recipe with every choice that was left open, as it was made."""
    parts = [_resolved_part(part, group) for part, group in zip(wanted, groups, strict=True)]
    rules = parts[len(parts) - len(recipe.rules) :]
    base = parts[0]
    if len(parts) == len(recipe.rules):  # rules for all modules, each of which says everything
        base = replace(base, rank=None, energy=None, svd=Recipe.svd, parameters={})
    return replace(
        base,
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


def _resolved_part(part: RecipePart, group: Group) -> Recipe:
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
