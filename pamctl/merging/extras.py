"""What becomes of the tensors of merged adapters that are no deltas: passed through, summed, or refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import widest
from pamctl.adapters.tensor_file import DTYPES
from pamctl.merging.group import Group
from pamctl.merging.methods.method import Combination
from pamctl.merging.shares import shares
from pamctl.refusal import Refusal

FullModules = Literal["refuse", "first", "mean"]


def merged_extras(
    adapters: Sequence[Adapter], groups: Sequence[Group], full_modules: FullModules
) -> tuple[dict[str, Extra], tuple[str, ...]]:
    """The extras of the merged adapter, by canonical tensor id, and what the user should know of them.

    A `lora_bias` is part of the delta: the same sum, absent ones counting as 0. Any other tensor replaces
    one of the base, so that there is nothing to add: in one adapter only, or equal bit for bit in all that
    have it, it passes through.

    Args:
        groups: how modules are merged; the first one's weights are those of full tensors.
        full_modules: what several that differ become: `refuse`; `first`, that of the first adapter which has
            one; `mean`, the mean weighted among those that have one.

    Raises:
        Refusal: tensors that differ, or that differ in shape, or one that replaces a weight which another
            adapter adapts; a `lora_bias` where the method is no sum.
    """
    extras: dict[str, Extra] = {}
    outcomes: dict[str, list[str]] = {}
    weights = groups[0].in_given_order(groups[0].weights)
    for name in sorted(set().union(*(adapter.extras for adapter in adapters))):
        holders = [
            (adapter, weight)
            for adapter, weight in zip(adapters, weights, strict=True)
            if name in adapter.extras
        ]
        if holders[0][0].extras[name].role == "lora_bias":
            extras[name] = _bias(name, adapters, groups)
            continue
        _refuse_replaced_and_adapted(name, holders[0][0], adapters)
        extras[name], outcome = _full(name, holders, full_modules)
        outcomes.setdefault(outcome, []).append(name)
    return extras, tuple(
        f"full tensors that {outcome}: {len(names)}, such as {names[0]}"
        for outcome, names in outcomes.items()
    )


def has_full_tensors(extras: Mapping[str, Extra]) -> bool:
    """Whether any of them is no part of a delta."""
    return any(extra.role != "lora_bias" for extra in extras.values())


def _bias(name: str, adapters: Sequence[Adapter], groups: Sequence[Group]) -> Extra:
    module = name.rpartition(".")[0]
    group = next((group for group in groups if module in group.modules), groups[0])
    work = group.work
    if not isinstance(work, Combination) or work.uses_gram or group.is_square_root:
        raise Refusal(
            f"{name} is a bias of lora_B, and {group.method.name} is no plain sum of what it merges",
            "use average, linear or task-arithmetic, or adapters without such biases",
        )
    coefficients = work.coefficients(None, np.asarray(group.weights), group.settings)
    weights = group.in_given_order([float(coefficient) for coefficient in coefficients])
    holders = [(adapters[i], weights[i]) for i in group.order if name in adapters[i].extras]
    return _mean(name, holders, [weight for _, weight in holders])


def _full(
    name: str, holders: Sequence[tuple[Adapter, float]], full_modules: FullModules
) -> tuple[Extra, str]:
    """One tensor that replaces the base's, and how it came about."""
    first = holders[0][0]
    extra = first.extras[name]
    if len(holders) == 1:
        return extra, f"only {first.name} has and that pass through as they are"
    differing = next((other for other, _ in holders[1:] if not _equal(extra, other.extras[name])), None)
    if differing is None:
        return extra, "are equal in the adapters that have them and pass through as they are"
    if full_modules == "first":
        return extra, f"differ between adapters and are those of {first.name}"
    if full_modules == "mean":
        holders = sorted(holders, key=lambda holder: (holder[0].claimed_fingerprint, holder[1]))
        weights = [weight for _, weight in holders]
        among = shares(weights if all(weight >= 0 for weight in weights) else None, len(holders))
        return _mean(name, holders, among), "differ between adapters and become their weighted mean"
    raise Refusal(
        f"{name} is a full tensor, not a delta, and differs between {first.name} and {differing.name}",
        "choose with --full-modules first or mean what becomes of such tensors",
    )


def _refuse_replaced_and_adapted(name: str, holder: Adapter, adapters: Sequence[Adapter]) -> None:
    """Refuse a full weight in one adapter beside a delta for the base's weight in another."""
    module, _, leaf = name.rpartition(".")
    other = next(
        (adapter for adapter in adapters if adapter is not holder and module in adapter.shapes), None
    )
    if leaf == "weight" and other is not None and module not in holder.shapes:
        raise Refusal(
            f"{holder.name} replaces {name} whole, {other.name} adapts the base's {module}",
            "a sum of the two means nothing: merge adapters that treat it alike",
        )


def _equal(one: Extra, other: Extra) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return bool(np.array_equal(_bits(one.read()), _bits(other.read())))


def _bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _mean(name: str, holders: Sequence[tuple[Adapter, float]], weights: Sequence[float]) -> Extra:
    """The weighted sum, computed when it is read; float32 for biases of lora_B, else the widest dtype."""
    first = holders[0][0]
    extras = [adapter.extras[name] for adapter, _ in holders]
    for (adapter, _), extra in zip(holders, extras, strict=True):
        if extra.shape != extras[0].shape:
            raise Refusal(
                f"{name} is {list(extras[0].shape)} in {first.name}, {list(extra.shape)} in {adapter.name}",
                "use adapters of one base model and one vocabulary",
            )
    dtype = widest(extra.dtype for extra in extras)
    return Extra(
        extras[0].role, extras[0].shape, dtype, _summed([extra.read for extra in extras], weights, dtype)
    )


def _summed(
    reads: Sequence[Callable[[], NDArray[Any]]], weights: Sequence[float], dtype: str
) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        total = sum(
            np.float32(weight) * values().astype(np.float32)
            for values, weight in zip(reads, weights, strict=True)
        )
        return np.asarray(total).astype(DTYPES[dtype])

    return read
