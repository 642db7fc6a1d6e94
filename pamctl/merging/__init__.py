"""Merging adapters into one, on the CPU and without the base model."""

from collections.abc import Sequence
from typing import Literal

from pamctl.adapters.adapter import Adapter
from pamctl.merging.execute import Merged, execute
from pamctl.merging.extras import FullModules
from pamctl.merging.plan import MergePlan, Space, plan_merge

__all__ = ["MergePlan", "Merged", "execute", "merge", "plan_merge"]


def merge(
    adapters: Sequence[Adapter],
    method: str = "average",
    weights: Sequence[float] | None = None,
    space: Space | Literal["auto"] = "auto",
    rank: int | None = None,
    full_modules: FullModules = "refuse",
    *,
    allow_base_mismatch: bool = False,
) -> Adapter:
    """Merge adapters of one base into one adapter, which is computed module by module when it is saved.

    Args:
        adapters: two or more, as `open_adapter` gives them. Their order is the order of the tasks.
        method: `average`, the weighted mean.
        weights: one an adapter, divided by their sum; equal by default.
        space: `factor` averages A and B apart, right where the adapters share their start; `delta` averages
            scale · B @ A exactly, at the sum of the ranks; `auto` takes factors where they share a start by
            their records or the two results differ by at most 1 %, else delta.
        rank: truncate the averaged delta to this rank.
        full_modules: what full tensors, as those of peft's `modules_to_save`, become where they differ:
            `refuse`, the `first`, or their weighted `mean`. Biases of lora_B are summed as the deltas are.
        allow_base_mismatch: merge adapters of two bases on the Hub whose names differ.

    Raises:
        Refusal: different bases, no module in common, modules of other sizes, factors that do not fit,
            full tensors that differ.
        UsageRefusal: an option is out of range.
    """
    plan = plan_merge(
        adapters, method, weights, space, rank, full_modules, allow_base_mismatch=allow_base_mismatch
    )
    return execute(plan).adapter
