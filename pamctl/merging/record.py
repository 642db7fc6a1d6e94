"""The record of a merge, from which it can be done again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pamctl import __version__
from pamctl.adapters.provenance import Provenance
from pamctl.merging.extras import has_full_tensors
from pamctl.merging.plan import MergePlan
from pamctl.merging.recipe import Recipe


def record(plan: MergePlan, output: Mapping[str, Any] | None = None) -> Provenance:
    """What `pamctl.json` says of the merged adapter: its parents, and the recipe as it was resolved.

    Args:
        output: how it is written, where that was chosen.
    """
    records = [adapter.provenance for adapter in plan.adapters if adapter.provenance]
    tasks = dict.fromkeys(task for record in records for task in record.tasks)
    bases = [adapter.base for adapter in plan.adapters if adapter.base]
    parameters = plan.recipe.to_table()
    for name in ("method", "seed"):
        del parameters[name]
    if not parameters["rules"]:
        del parameters["rules"]
    if parameters["svd"] == Recipe.svd and not any(group.is_dense for group in plan.groups):
        del parameters["svd"]
    if not has_full_tensors(plan.extras):
        del parameters["full_modules"]
    if plan.device != "cpu":
        parameters["device"] = plan.device
    return Provenance(
        kind="merged",
        stage="merged",
        tasks=tuple(tasks),
        parents=tuple(adapter.as_parent() for adapter in plan.adapters),
        base=next((base for base in bases if base.fingerprint), bases[0] if bases else None),
        method=plan.method,
        parameters={**parameters, **({"output": dict(output)} if output else {})},
        versions={"pamctl": __version__, "numpy": np.__version__},
        seed=plan.recipe.seed if any(group.acting.random for group in plan.groups) else None,
    )
