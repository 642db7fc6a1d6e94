"""Doing what a merge plan says: module by module, with the record of what was merged."""

from collections.abc import Mapping
from dataclasses import dataclass

from pamctl.adapters.adapter import Adapter, ComputedModules, LoraFactors, ModuleShape, widest
from pamctl.adapters.provenance import Provenance
from pamctl.merging.average import average_factors
from pamctl.merging.low_rank import compress, concatenate
from pamctl.merging.plan import MergePlan


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Args:
        adapter: the merged adapter.
        retained_energy: the share of the delta's squared norm that truncation kept; 1 where nothing was cut.
    """

    adapter: Adapter
    retained_energy: float


def execute(plan: MergePlan) -> Merged:
    """Merge as planned. Only a truncated result is held in memory; others are computed when written."""
    modules, kept = _compressed(plan) if plan.compressed else (_lazy_modules(plan), 1.0)
    first = plan.adapters[0]
    base_model = next((adapter.base_model for adapter in plan.adapters if adapter.base_model), None)
    return Merged(Adapter(modules, _provenance(plan), base_model, name=f"merge of {first.name}"), kept)


def _lazy_modules(plan: MergePlan) -> Mapping[str, LoraFactors]:
    if plan.space == "factor":
        return ComputedModules(
            plan.adapters[0].shapes,
            lambda module: average_factors(
                [adapter.modules[module] for adapter in plan.adapters], plan.weights
            ),
        )
    return ComputedModules(
        {module: _summed_shape(plan, module) for module in plan.modules}, lambda module: _sum(plan, module)
    )


def _compressed(plan: MergePlan) -> tuple[Mapping[str, LoraFactors], float]:
    modules: dict[str, LoraFactors] = {}
    kept = total = 0.0
    for module in plan.modules:
        modules[module], here, before = compress(_sum(plan, module), plan.rank)
        kept, total = kept + here, total + before
    return modules, kept / total if total else 1.0


def _sum(plan: MergePlan, module: str) -> LoraFactors:
    present = [
        (adapter.modules[module], weight)
        for adapter, weight in zip(plan.adapters, plan.weights, strict=True)
        if module in adapter.shapes
    ]
    return concatenate([factors for factors, _ in present], [weight for _, weight in present])


def _summed_shape(plan: MergePlan, module: str) -> ModuleShape:
    shapes = [adapter.shapes[module] for adapter in plan.adapters if module in adapter.shapes]
    return ModuleShape(
        sum(shape.rank for shape in shapes),
        shapes[0].inputs,
        shapes[0].outputs,
        widest(shape.dtype for shape in shapes),
        shapes[0].layer,
    )


def _provenance(plan: MergePlan) -> Provenance:
    records = [adapter.provenance for adapter in plan.adapters if adapter.provenance]
    tasks = dict.fromkeys(task for record in records for task in record.tasks)
    bases = [adapter.base for adapter in plan.adapters if adapter.base]
    parameters: dict[str, object] = {"weights": list(plan.weights), "space": plan.space}
    if plan.compressed:
        parameters["rank"] = plan.rank
    return Provenance(
        kind="merged",
        stage="merged",
        tasks=tuple(tasks),
        parents=tuple(adapter.as_parent() for adapter in plan.adapters),
        base=next((base for base in bases if base.fingerprint), bases[0] if bases else None),
        method=plan.method,
        parameters=parameters,
    )
