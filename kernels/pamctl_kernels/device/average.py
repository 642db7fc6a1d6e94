"""The weighted average of jax arrays, accumulated in float32."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamctl_kernels.device.arrays import bits_of, named_leaves, on_device, refuse_output, rounded_product
from pamctl_kernels.leaf import format_of


def weighted_average(xs: Sequence[Any], weights: Any, out: Any) -> Any:
    refuse_output(out)
    first = named_leaves(xs[0])
    for x in xs:
        for (name, leaf), (_, like) in zip(named_leaves(x), first, strict=True):
            format_of(name, leaf)
            if leaf.shape != like.shape:
                raise ValueError(f"{name} has shapes {like.shape} and {leaf.shape}")
    if not isinstance(weights, jax.Array):
        weights = on_device(np.asarray(weights, np.float32))
    return _weighted_average(list(xs), weights)


@jax.jit
def _weighted_average(xs: Sequence[Any], weights: jax.Array) -> Any:
    shares = list(weights.astype(jnp.float32))
    idempotent = sum(shares) == 1

    def average_leaf(*leaves: jax.Array) -> jax.Array:
        first, *others = (leaf.astype(jnp.float32) for leaf in leaves)
        total = rounded_product(first, shares[0])
        same = jnp.full(first.shape, idempotent)
        for other, share in zip(others, shares[1:], strict=True):
            same &= bits_of(first) == bits_of(other)
            total += rounded_product(other, share)
        return jnp.where(same, leaves[0], total.astype(leaves[0].dtype))

    return jax.tree.map(average_leaf, *xs)
