"""Which adapters may be used together: one base, common modules and, factor by factor, one rank and start."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import ModuleShape
from pamctl.adapters.module_names import is_bare_text, is_text_tower
from pamctl.adapters.routers import no_one_delta
from pamctl.hub import is_repository_name
from pamctl.refusal import Refusal


def refuse_experts(adapters: Iterable[Adapter]) -> None:
    """Refuse a mixture of experts, opened by who heeds routers, where one b @ a of each module is wanted."""
    for adapter in adapters:
        if adapter.routers:
            raise no_one_delta(adapter.name)


def refuse_different_bases(adapters: Sequence[Adapter]) -> None:
    """Refuse two adapters that were recorded on different base weights."""
    known = [adapter for adapter in adapters if adapter.base_fingerprint]
    for other in known[1:]:
        if other.base_fingerprint != known[0].base_fingerprint:
            raise Refusal(
                f"{known[0].name} belongs to {_base(known[0])}, {other.name} to {_base(other)}",
                "use adapters of one base model",
            )


def refuse_different_base_names(adapters: Sequence[Adapter]) -> None:
    """Refuse two adapters whose bases are known as two models on the Hub, and no fingerprint settles it."""
    named = [adapter for adapter in adapters if adapter.base_model and is_repository_name(adapter.base_model)]
    for other in named[1:]:
        first = named[0]
        settled = first.base_fingerprint is not None and first.base_fingerprint == other.base_fingerprint
        if other.base_model != first.base_model and not settled:
            raise Refusal(
                f"{first.name} belongs to {first.base_model}, {other.name} to {other.base_model}",
                "use adapters of one base model, or add --allow-base-mismatch if the weights are the same",
            )


def refuse_different_modules(adapters: Sequence[Adapter]) -> None:
    """Refuse adapters with no module in common with the first, or with a module of another size."""
    first = adapters[0]
    for other in adapters[1:]:
        for bare, tower in ((first, other), (other, first)):
            _refuse_text_of_two_names(bare, tower)
        common = first.shapes.keys() & other.shapes.keys()
        if not common:
            raise Refusal(
                f"{first.name} and {other.name} have no module in common: "
                f"the one adapts {_example(first)}, the other {_example(other)}",
                _use_one_base(first, other),
            )
        for module in sorted(common):
            one, two = first.shapes[module], other.shapes[module]
            if one.layer != two.layer:
                raise Refusal(
                    f"{module} is {_layer(one)} in {first.name} and {_layer(two)} in {other.name}",
                    _use_one_base(first, other),
                )
            if (one.inputs, one.outputs) != (two.inputs, two.outputs):
                raise Refusal(
                    f"{module} is {one.outputs}x{one.inputs} in {first.name} "
                    f"and {two.outputs}x{two.inputs} in {other.name}",
                    _use_one_base(first, other),
                )


def factor_mismatch(adapters: Sequence[Adapter], modules: Iterable[str] | None = None) -> str | None:
    """Why the factors of these adapters cannot be taken element by element, or None when they can.

    Args:
        modules: those that matter; None for all.
    """
    first = adapters[0]
    among = {*modules} if modules is not None else {module for each in adapters for module in each.shapes}
    for other in adapters[1:]:
        for here, there in ((first, other), (other, first)):
            for module in here.shapes:
                if module in among and module not in there.shapes:
                    return f"{module} is in {here.name} and not in {there.name}"
        for module, shape in first.shapes.items():
            if module in among and shape.rank != other.shapes[module].rank:
                return (
                    f"{module} has rank {shape.rank} in {first.name} "
                    f"and {other.shapes[module].rank} in {other.name}"
                )
    return None


def share_a_start(adapters: Sequence[Adapter]) -> bool:
    """Whether, by their records, all factors grew from one adapter: one of these, or a parent of all."""
    return bool(set.intersection(*(_starts(adapter) for adapter in adapters)))


def with_differing_base_names(adapters: Sequence[Adapter]) -> tuple[Adapter, Adapter] | None:
    """Two adapters whose bases are named differently, where no fingerprint settles whether they differ."""
    if all(adapter.base_fingerprint is not None for adapter in adapters):
        return None
    named = [adapter for adapter in adapters if adapter.base_model]
    return next(((named[0], other) for other in named if other.base_model != named[0].base_model), None)


def repeated(adapters: Sequence[Adapter]) -> list[tuple[Adapter, Adapter]]:
    """Each adapter that is equal to an earlier one, after that one."""
    found, pairs = dict[str, Adapter](), []
    for adapter in adapters:
        fingerprint = adapter.claimed_fingerprint
        if fingerprint in found:
            pairs.append((found[fingerprint], adapter))
        else:
            found[fingerprint] = adapter
    return pairs


def _refuse_text_of_two_names(bare: Adapter, tower: Adapter) -> None:
    """Refuse a language model's own ids beside a text tower's: whether they are the same is not known."""
    alone = next(filter(is_bare_text, bare.shapes), None)
    part = next(filter(is_text_tower, tower.shapes), None)
    if alone and part:
        raise Refusal(
            f"{bare.name} and {tower.name} have no text module in common: the one adapts {alone}, as of a "
            f"language model alone, the other {part}, and their bases are not known to be the same",
            f"if {bare.name} was trained on the same text tower: "
            f"pamctl convert {bare.name} -o RENAMED --names-from {tower.name}, and use RENAMED",
        )


def _use_one_base(first: Adapter, other: Adapter) -> str:
    named = [f"{each.name} is of {each.base_model}" for each in (first, other) if each.base_model]
    return "use adapters of one base model" + (f": {' and '.join(named)}" if named else "")


def _example(adapter: Adapter) -> str:
    return next(iter(adapter.shapes), "none")


def _starts(adapter: Adapter) -> set[str]:
    """The adapters whose factors this one continues, by fingerprint; a merge of deltas makes new factors."""
    record = adapter.provenance
    if record is None or has_new_factors(record.parameters):
        return {adapter.claimed_fingerprint}
    return {adapter.claimed_fingerprint, *(parent.fingerprint for parent in record.parents)}


def has_new_factors(parameters: Mapping[str, Any]) -> bool:
    """Whether some module was merged as a delta, and its factors continue nobody's."""
    rules = parameters.get("rules")
    parts = [parameters, *(rules if isinstance(rules, list) else [])]
    return any(isinstance(part, Mapping) and part.get("space") == "delta" for part in parts)


def _layer(shape: ModuleShape) -> str:
    kernel = "x".join(map(str, shape.layer.kernel))
    return f"{shape.layer.kind} {kernel}".strip()


def _base(adapter: Adapter) -> str:
    return f"{adapter.base_model or 'a base'} ({(adapter.base_fingerprint or '')[:12]})"
