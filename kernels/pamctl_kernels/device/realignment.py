"""Sign conflicts and realignment of jax arrays, in one jitted program each."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pamctl_kernels.device.arrays import (
    bits_of,
    checked_thresholds,
    is_nan,
    magnitude_of,
    refuse_output,
    sum_together,
)
from pamctl_kernels.leaf import format_of


def sign_conflicts(w: Any, g: Any, threshold: Any) -> Any:
    return _sign_conflicts(w, g, checked_thresholds(w, g, threshold))


@jax.jit
def _sign_conflicts(w: Any, g: Any, thresholds: Any) -> Any:
    return jax.tree.map(_conflict, w, g, thresholds)


def realign(w: Any, g: Any, threshold: Any, reinit: str, per_layer: bool, out: Any) -> tuple[Any, Any]:
    refuse_output(out)
    return _realign(w, g, checked_thresholds(w, g, threshold), reinit=reinit, per_layer=per_layer)


@partial(jax.jit, static_argnames=("reinit", "per_layer"))
def _realign(w: Any, g: Any, thresholds: Any, *, reinit: str, per_layer: bool) -> tuple[Any, Any]:
    conflicts = jax.tree.map(_conflict, w, g, thresholds)
    aligned = jax.tree.map(lambda c, w, g: jnp.where(c, g if reinit == "global" else 0, w), conflicts, w, g)

    def count(conflict: jax.Array, w: jax.Array, g: jax.Array, threshold: jax.Array) -> jax.Array:
        nan = is_nan(w) | is_nan(g) | is_nan(threshold)
        return jnp.stack(sum_together(conflict, nan, axes=range(1 if per_layer else 0, w.ndim)))

    counts = jax.tree.map(count, conflicts, w, g, thresholds)
    if not per_layer:
        counts = sum(jax.tree.leaves(counts), jnp.zeros(2, jnp.int32))
    return aligned, jax.tree.map(lambda pair: jnp.where(pair[1] > 0, -1, pair[0]), counts)


def _conflict(w: jax.Array, g: jax.Array, threshold: jax.Array) -> jax.Array:
    """Where |g| >= threshold, g != 0 and the signs differ; a NaN threshold exceeds everything."""
    mask = format_of("g", g).magnitude_mask
    limit = jnp.maximum(bits_of(threshold), 1)  # 1: the smallest g that is not zero
    # w with the sign of g taken off: a positive integer where, and only where, w has that sign.
    return (magnitude_of(g) >= limit) & ((bits_of(w) ^ (bits_of(g) & ~mask)) <= 0)
