"""How each module is merged: its rank, and what that takes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import ModuleShape, computed
from pamctl.merging.cut import Cut
from pamctl.merging.group import Group
from pamctl.merging.grouping import RecipePart
from pamctl.merging.inputs import Inputs
from pamctl.merging.memory import Need, need_of, size
from pamctl.merging.methods.method import Combination, Elementwise
from pamctl.merging.recipe import Recipe
from pamctl.refusal import Refusal, UsageRefusal


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


def module_plans(
    groups: Sequence[Group],
    parts: Sequence[RecipePart],
    shapes: Mapping[str, ModuleShape],
    adapters: Sequence[Adapter],
    max_memory: int,
    *,
    streams: bool,
) -> dict[str, ModulePlan]:
    """Every module's plan, in order.

    Raises:
        Refusal: a module takes more than `max_memory`.
        UsageRefusal: a rank that the method or the space does not have.
    """
    inputs, found = Inputs(adapters), dict[str, ModulePlan]()
    for number, (group, part) in enumerate(zip(groups, parts, strict=True)):
        for module in group.modules:
            shape, ranks = shapes[module], inputs.ranks(module)
            exact = _exact_rank(group, shape, ranks)
            cut = _cut(group, part.recipe, ranks, exact)
            rank = min(cut.rank or exact, exact)
            need = need_of(group, cut, shape, ranks, rank, max_memory, streams=streams)
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
