"""What jax arrays agree on: trimming, sign election, and the merge of what has the elected sign."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamctl_kernels.device.arrays import (
    bits_of,
    is_nan,
    magnitude_of,
    named_leaves,
    on_device,
    rounded_product,
)
from pamctl_kernels.leaf import check_shape, format_of, threshold_for


def trim(x: Any, threshold: Any) -> Any:
    return _trim(x, _thresholds_like(x, threshold))


@jax.jit
def _trim(x: Any, thresholds: Any) -> Any:
    return jax.tree.map(_trimmed, x, thresholds)


def elect_signs(xs: Sequence[Any], weights: Any, by: str) -> Any:
    _check_alike(xs)
    return _elect_signs(list(xs), _shares(weights, len(xs)), by=by)


@partial(jax.jit, static_argnames="by")
def _elect_signs(xs: Sequence[Any], shares: jax.Array, *, by: str) -> Any:
    def elect_leaf(*leaves: jax.Array) -> jax.Array:
        total = _election([leaf.astype(jnp.float32) for leaf in leaves], shares, by)
        return (total > 0).astype(jnp.int8) - (total < 0).astype(jnp.int8)

    return jax.tree.map(elect_leaf, *xs)


def merge_agreeing(
    xs: Sequence[Any], weights: Any, thresholds: Sequence[Any], elect: str, on_tie: int, divide: str
) -> Any:
    _check_alike(xs)
    limits = [_thresholds_like(x, threshold) for x, threshold in zip(xs, thresholds, strict=True)]
    shares = _shares(weights, len(xs))
    return _merge_agreeing(list(xs), limits, shares, elect=elect, on_tie=on_tie, divide=divide)


@partial(jax.jit, static_argnames=("elect", "on_tie", "divide"))
def _merge_agreeing(
    xs: Sequence[Any], limits: Sequence[Any], shares: jax.Array, *, elect: str, on_tie: int, divide: str
) -> Any:
    ballot = shares if elect == "weighted" else jnp.ones_like(shares)
    by = "frequency" if elect == "frequency" else "total"

    def merge_leaf(*leaves_and_limits: jax.Array) -> jax.Array:
        leaves = leaves_and_limits[: len(xs)]
        pairs = zip(leaves, leaves_and_limits[len(xs) :], strict=True)
        values = [_trimmed(leaf, limit).astype(jnp.float32) for leaf, limit in pairs]
        total = _election(values, ballot, by)
        elected = jnp.where(total > 0, 1, jnp.where(total < 0, -1, on_tie))
        agrees = [_sign(value) * elected > 0 for value in values]
        nan = sum((is_nan(value) for value in values), jnp.bool_(False))
        merged = jnp.where(nan, jnp.nan, _combine(values, agrees, shares, divide))
        return merged.astype(leaves[0].dtype)

    return jax.tree.map(merge_leaf, *xs, *limits)


def _combine(
    values: Sequence[jax.Array], agrees: Sequence[jax.Array], shares: jax.Array, divide: str
) -> jax.Array:
    zero = jnp.float32(0)
    products = [rounded_product(value, share) for value, share in zip(values, shares, strict=True)]
    merged, *others = (jnp.where(agree, each, 0) for agree, each in zip(agrees, products, strict=True))
    for other in others:
        if divide == "max":
            merged = jnp.where(magnitude_of(other) > magnitude_of(merged), other, merged)
        else:
            merged += other
    if divide == "count":
        merged /= jnp.maximum(sum((agree.astype(jnp.float32) for agree in agrees), zero), 1)
    elif divide == "weight":
        weight = sum((jnp.where(agree, share, 0) for agree, share in zip(agrees, shares, strict=True)), zero)
        merged = jnp.where(weight == 0, 0, merged / jnp.where(weight == 0, 1, weight))
    return jnp.where(magnitude_of(merged) == 0, 0, merged)  # no zero is negative


def _election(values: Sequence[jax.Array], shares: jax.Array, by: str) -> jax.Array:
    """The sum whose sign is elected."""
    if by == "frequency":
        return sum((_sign(value) for value in values), jnp.int32(0)).astype(jnp.float32)
    return sum(
        (rounded_product(value, share) for value, share in zip(values, shares, strict=True)), jnp.float32(0)
    )


def _sign(x: jax.Array) -> jax.Array:
    """+1, 0 or -1 (int32), of subnormals too."""
    return jnp.where(magnitude_of(x) == 0, 0, 1 | bits_of(x) >> 31)


def _trimmed(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """`x` where |x| >= threshold, else +0; NaN where either is."""
    limit = jnp.maximum(bits_of(threshold), 1)
    kept = jnp.where((magnitude_of(x) >= limit) | is_nan(x), x, 0)
    return jnp.where(is_nan(threshold), jnp.nan, kept).astype(x.dtype)


def _thresholds_like(x: Any, threshold: Any) -> Any:
    """`threshold` as a tree like `x`, every leaf of it fit for its leaf of `x`; None is 0."""
    structure: Any = jax.tree.structure(x)
    if threshold is None or jax.tree_util.all_leaves([threshold]):
        limits = [threshold] * structure.num_leaves
    else:
        limits = structure.flatten_up_to(threshold)
    named = zip(named_leaves(x), limits, strict=True)
    fit = [
        on_device(threshold_for(name, 0 if limit is None else limit, leaf)) for (name, leaf), limit in named
    ]
    return jax.tree.unflatten(structure, fit)


def _check_alike(xs: Sequence[Any]) -> None:
    first = named_leaves(xs[0])
    for x in xs:
        for (name, leaf), (_, like) in zip(named_leaves(x), first, strict=True):
            format_of(name, leaf)
            check_shape(name, leaf, like)


def _shares(weights: Any, count: int) -> jax.Array:
    weights = np.ones(count) if weights is None else weights
    return weights if isinstance(weights, jax.Array) else on_device(np.asarray(weights, np.float32))
