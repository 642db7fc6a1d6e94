"""Doing what a merge plan says: module by module, with the record of what was merged."""

from dataclasses import dataclass

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import ComputedModules, LoraFactors
from pamctl.adapters.provenance import Provenance
from pamctl.merging.average import average_factors
from pamctl.merging.low_rank import concatenate
from pamctl.merging.plan import MergePlan
from pamctl.merging.truncation import Truncation, truncated


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Args:
        adapter: the merged adapter, computed module by module when it is read or written.
        truncation: what cutting the rank keeps; None where nothing is cut.
    """

    adapter: Adapter
    truncation: Truncation | None


def execute(plan: MergePlan) -> Merged:
    """Merge as planned: the result is computed when it is written and never held whole."""
    modules, truncation = ComputedModules(plan.exact_shapes, lambda module: _merged(plan, module)), None
    if plan.compressed:
        truncation = truncated(modules, plan.rank)
        modules = truncation.modules
    first = plan.adapters[0]
    base_model = next((adapter.base_model for adapter in plan.adapters if adapter.base_model), None)
    name = f"merge of {first.name}"
    denoisers = {adapter.denoiser for adapter in plan.adapters if adapter.denoiser}
    denoiser = denoisers.pop() if len(denoisers) == 1 else None
    merged = Adapter(modules, _provenance(plan), base_model, name, plan.extras, denoiser=denoiser)
    return Merged(merged, truncation)


def _merged(plan: MergePlan, module: str) -> LoraFactors:
    present = [
        (adapter.modules[module], weight)
        for adapter, weight in zip(plan.adapters, plan.weights, strict=True)
        if module in adapter.shapes
    ]
    combine = average_factors if plan.space == "factor" else concatenate
    return combine([factors for factors, _ in present], [weight for _, weight in present])


def _provenance(plan: MergePlan) -> Provenance:
    records = [adapter.provenance for adapter in plan.adapters if adapter.provenance]
    tasks = dict.fromkeys(task for record in records for task in record.tasks)
    bases = [adapter.base for adapter in plan.adapters if adapter.base]
    parameters: dict[str, object] = {"weights": list(plan.weights), "space": plan.space}
    if plan.compressed:
        parameters["rank"] = plan.rank
    if any(extra.role != "lora_bias" for extra in plan.extras.values()):
        parameters["full_modules"] = plan.full_modules
    return Provenance(
        kind="merged",
        stage="merged",
        tasks=tuple(tasks),
        parents=tuple(adapter.as_parent() for adapter in plan.adapters),
        base=next((base for base in bases if base.fingerprint), bases[0] if bases else None),
        method=plan.method,
        parameters=parameters,
    )
