"""Merging adapters into one, on the CPU and without the base model."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pamctl.adapters.adapter import Adapter
from pamctl.merging.cut import Svd
from pamctl.merging.devices import Device
from pamctl.merging.execute import Merged, execute
from pamctl.merging.extras import FullModules
from pamctl.merging.methods.method import Space
from pamctl.merging.plan import MAX_MEMORY, MergePlan, plan_merge
from pamctl.merging.recipe import Rank, Recipe, Rule

__all__ = ["MergePlan", "Merged", "Recipe", "Rule", "execute", "merge", "plan_merge"]


def merge(
    adapters: Sequence[Adapter],
    method: str = "average",
    weights: Sequence[float] | None = None,
    space: Space | Literal["auto"] = "auto",
    rank: Rank | None = None,
    full_modules: FullModules = "refuse",
    *,
    variant: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    energy: float | None = None,
    svd: Svd = "randomized",
    seed: int = 0,
    rules: Sequence[Rule] = (),
    allow_base_mismatch: bool = False,
    max_memory: int = MAX_MEMORY,
    device: Device = "cpu",
) -> Adapter:
    """Merge adapters of one base into one adapter, which is computed module by module when it is saved.

    Args:
        adapters: two or more, as `open_adapter` gives them. Their order is the order of the tasks.
        method: a name in `pamctl.merging.methods.NAMES`, which `explanation` there explains.
        weights: one an adapter; for means divided by their sum, equal by default.
        space: `factor` merges A and B apart, right where the adapters share their start; `delta` merges
            scale · B @ A; `auto` takes factors where the method's result is about the same: where the
            adapters share a start by their records, or the two differ by at most 1 %.
        rank: of the result, `max` for the largest of the inputs; by default an exact result keeps the rank
            that it has and a dense one is cut to `max`.
        full_modules: what full tensors, as those of peft's `modules_to_save`, become where they differ:
            `refuse`, the `first`, or their weighted `mean`. Biases of lora_B are summed as the deltas are.
        variant: whose definition of the method: `paper`, `peft` or `mergekit`.
        parameters: of the method, by name.
        energy: keep the smallest rank with this share of each delta's squared norm.
        svd: how dense deltas are decomposed: `randomized`, with the error measured, or in `full`.
        seed: of random methods.
        rules: what is different for some modules.
        allow_base_mismatch: merge adapters of two bases on the Hub whose names differ.
        max_memory: bytes for the numbers that are at work at a time.
        device: where dense deltas are worked on: `cpu`, `gpu`, `tpu`; `auto` takes an accelerator if there.

    Raises:
        Refusal: different bases, no module in common, modules of other sizes, factors that do not fit,
            full tensors that differ, a module that needs more memory.
        UsageRefusal: an option is out of range.
    """
    recipe = Recipe(
        method,
        variant,
        None if weights is None else tuple(weights),
        space,
        rank,
        energy,
        svd,
        parameters or {},
        seed,
        full_modules,
        tuple(rules),
    )
    plan = plan_merge(
        adapters, recipe, allow_base_mismatch=allow_base_mismatch, max_memory=max_memory, device=device
    )
    return execute(plan).adapter
