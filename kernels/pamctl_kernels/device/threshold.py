"""The exact threshold of jax arrays: its bits are fixed from the top, a digit a pass."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pamctl_kernels.device.arrays import count_elements, magnitude_of, named_leaves, on_device, sum_together
from pamctl_kernels.leaf import format_of, one_dtype
from pamctl_kernels.top_p import important_count

# Bits of the answer found per pass. On a CPU seven counts in one read still run at memory speed; a GPU has
# arithmetic to spare for fifteen, and then reads a float32 eight times instead of eleven.
_DIGIT = {"cpu": 3}
_DIGIT_ELSEWHERE = 4


def magnitude_threshold(x: Any, top_p: object) -> jax.Array:
    leaves = named_leaves(x)
    one_dtype(leaves)
    k = on_device(np.int32(important_count(top_p, count_elements(leaves))))
    arrays = [leaf for _, leaf in leaves]
    return _kth_largest(arrays, k, digit=_DIGIT.get(_platform(arrays[0]), _DIGIT_ELSEWHERE))


def _platform(x: jax.Array) -> str:
    """Where `x` lies; of a tracer, where programs run unless told otherwise."""
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
        return jax.default_backend()
    return next(iter(x.devices())).platform


@partial(jax.jit, static_argnames="digit")
def _kth_largest(x: Sequence[jax.Array], k: jax.Array, *, digit: int = 3) -> jax.Array:
    """Fix the bits of the answer from the top, `digit` a pass; NaN if any leaf holds one, +inf for k = 0."""
    form = format_of("x", x[0])
    width = form.magnitude_mask.bit_length()

    def fix_digit(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Tied to the state, the magnitudes are no invariant that XLA would store outside the loop.
        leaves, (prefix, _) = lax.optimization_barrier((x, state))
        # The last digit may be narrower: its surplus candidates lie past every answer and count as missed.
        shift = jnp.maximum(width - digit * (i + 1), 0)
        candidates = [prefix + (value << shift) for value in range(1, 1 << digit)]
        *reached, nans = _count_at_least(leaves, [*candidates, jnp.int32(form.infinity + 1)])
        fixed = sum((count >= k).astype(jnp.int32) for count in reached)
        return prefix + (fixed << shift), nans

    passes = -(-width // digit)
    bits, nans = lax.fori_loop(jnp.int32(0), jnp.int32(passes), fix_digit, (jnp.int32(0), jnp.int32(0)))
    bits = jnp.where(k > 0, bits, form.infinity)
    bits = jnp.where(nans > 0, form.magnitude_mask, bits)
    return lax.bitcast_convert_type(bits.astype(form.integer), x[0].dtype)


def _count_at_least(leaves: Sequence[jax.Array], candidates: Sequence[jax.Array]) -> list[jax.Array]:
    """For each candidate (bits), how many magnitudes of all leaves reach it, in one read."""
    totals = [jnp.int32(0)] * len(candidates)
    for leaf in leaves:
        magnitude = magnitude_of(leaf)
        counts = sum_together(*(magnitude >= candidate for candidate in candidates), axes=range(leaf.ndim))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return totals
