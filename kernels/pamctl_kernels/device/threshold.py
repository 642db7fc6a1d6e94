"""The exact threshold of jax arrays: an interval of bits that a sample proposes and counts narrow."""

import math
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

SAMPLE = 1 << 14
_DIGIT = 3
"""Bits of the answer found per pass: seven counts in one read still run at memory speed, on CPU and GPU."""


def magnitude_threshold(x: Any, top_p: object) -> jax.Array:
    leaves = named_leaves(x)
    one_dtype(leaves)
    k = on_device(np.int32(important_count(top_p, count_elements(leaves))))
    return _kth_largest([leaf for _, leaf in leaves], k)


@partial(jax.jit, static_argnames="digit")
def _kth_largest(x: Sequence[jax.Array], k: jax.Array, *, digit: int = _DIGIT) -> jax.Array:
    """The magnitude of rank k: NaN if any leaf holds one, +inf for k = 0.

    Each pass narrows the interval that holds the answer by `digit` bits. It is [low, high) in bits: at least
    k magnitudes reach low, fewer reach high. A sample says where to begin, one pass what of that is true.
    """
    form = format_of("x", x[0])
    past = jnp.int32(form.infinity + 1)
    guesses = _bracket(x, k)
    *reached, nans = count_at_least(x, [*guesses, past])
    low, high = jnp.int32(0), past
    for guess, count in zip(guesses, reached, strict=True):
        low = jnp.where(count >= k, jnp.maximum(low, guess), low)
        high = jnp.where(count < k, jnp.minimum(high, guess), high)

    def narrow(interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Tied to the state, the magnitudes are no invariant that XLA would store outside the loop.
        leaves, (low, high) = lax.optimization_barrier((x, interval))
        step = jnp.maximum((high - low + (1 << digit) - 1) >> digit, 1)
        candidates = [jnp.minimum(low + part * step, high) for part in range(1, 1 << digit)]
        parts = sum((count >= k).astype(jnp.int32) for count in count_at_least(leaves, candidates))
        low = low + parts * step
        return low, jnp.minimum(low + step, high)

    low, _ = lax.while_loop(lambda interval: interval[1] - interval[0] > 1, narrow, (low, high))
    bits = jnp.where(k > 0, low, form.infinity)
    bits = jnp.where(nans > 0, form.magnitude_mask, bits)
    return lax.bitcast_convert_type(bits.astype(form.integer), x[0].dtype)


def _bracket(x: Sequence[jax.Array], k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bits between which, but for bad luck in 10^4, the k-th magnitude lies, the upper end not included."""
    form = format_of("x", x[0])
    n = sum(leaf.size for leaf in x)
    samples = [
        magnitude_of(leaf[places(leaf.shape, -(-leaf.size * SAMPLE // n))]).ravel() for leaf in x if leaf.size
    ]
    if not samples:
        return jnp.int32(0), jnp.int32(form.infinity + 1)
    sample = jnp.sort(jnp.concatenate(samples))
    size = sample.size
    middle = (1 - k.astype(jnp.float32) / n) * size
    margin = 2 * math.sqrt(size)  # four standard deviations of a sampled median, more of other ranks
    below, over = (middle - margin).astype(jnp.int32), (middle + margin).astype(jnp.int32)
    low = jnp.where(below >= 0, sample[jnp.clip(below, 0, size - 1)], 0)
    high = jnp.where(over < size, sample[jnp.clip(over, 0, size - 1)] + 1, form.infinity + 1)
    return low, high


def places(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, ...]:
    """So many random places in an array of `shape`, the same on every run; of a small one all.

    By index and not of the ravelled array: that of a sharded one would be gathered first.
    """
    if not shape:
        return ()
    size = math.prod(shape)
    flat = np.arange(size) if size <= count else np.random.default_rng(0).integers(0, size, count)
    return tuple(axis.astype(np.int32) for axis in np.unravel_index(flat, shape))


def count_at_least(leaves: Sequence[jax.Array], candidates: Sequence[jax.Array]) -> list[jax.Array]:
    """For each candidate (bits), how many magnitudes of all leaves reach it, in one read."""
    totals = [jnp.int32(0)] * len(candidates)
    for leaf in leaves:
        magnitude = magnitude_of(leaf)
        counts = sum_together(*(magnitude >= candidate for candidate in candidates), axes=range(leaf.ndim))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return totals
