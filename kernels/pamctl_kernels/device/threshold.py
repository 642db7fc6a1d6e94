"""The exact threshold of jax arrays: an interval of bits that a sample proposes and counts narrow."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pamctl_kernels.device.arrays import count_elements, magnitude_of, named_leaves, on_device, sum_together
from pamctl_kernels.leaf import format_of, one_dtype
from pamctl_kernels.top_p import important_count

SAMPLE = 1 << 14
_PARTS = 8
"""A pass cuts the interval into so many: seven counts in one read run at about memory speed."""


def magnitude_threshold(x: Any, top_p: object) -> jax.Array:
    leaves = named_leaves(x)
    one_dtype(leaves)
    k = on_device(np.int32(important_count(top_p, count_elements(leaves))))
    return _kth_largest([leaf for _, leaf in leaves], k)


class _Interval(NamedTuple):
    """[low, high) in the bits of magnitudes: at least k of them reach low, fewer reach high.

    Args:
        at_low, at_high: how many do.
        stalled: whether the last pass left more than an eighth of it.
    """

    low: jax.Array
    high: jax.Array
    at_low: jax.Array
    at_high: jax.Array
    stalled: jax.Array


@jax.jit
def _kth_largest(x: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """The magnitude of rank k: NaN if any leaf holds one, +inf for k = 0.

    A sample says in which interval it lies, one pass what of that is true, and each pass then narrows it.
    """
    form = format_of("x", x[0])
    past = jnp.int32(form.infinity + 1)
    n = jnp.int32(sum(leaf.size for leaf in x))
    guesses = _bracket(x, k)
    *counts, nans = count_at_least(x, [*guesses, past])
    whole = _Interval(jnp.int32(0), past, n, jnp.int32(0), jnp.bool(False))

    def narrow(interval: _Interval) -> _Interval:
        # Tied to the state, the magnitudes are no invariant that XLA would store outside the loop.
        leaves, interval = lax.optimization_barrier((x, interval))
        cuts = [
            jnp.where(interval.stalled, even, likely)
            for even, likely in zip(_even_cuts(interval), _likely_cuts(interval, k), strict=True)
        ]
        return _believed(interval, cuts, count_at_least(leaves, cuts), k)

    start = _believed(whole, guesses, counts, k)._replace(stalled=jnp.bool(False))
    found = lax.while_loop(lambda interval: interval.high - interval.low > 1, narrow, start)
    bits = jnp.where(k > 0, found.low, form.infinity)
    bits = jnp.where(nans > 0, form.magnitude_mask, bits)
    return lax.bitcast_convert_type(bits.astype(form.integer), x[0].dtype)


def _believed(
    interval: _Interval, cuts: Sequence[jax.Array], counts: Sequence[jax.Array], k: jax.Array
) -> _Interval:
    """The interval once it is known how many magnitudes reach each of some cuts."""
    low, high, at_low, at_high, _ = interval
    for cut, count in zip(cuts, counts, strict=True):
        raises, lowers = (count >= k) & (cut > low), (count < k) & (cut < high)
        low, at_low = jnp.where(raises, cut, low), jnp.where(raises, count, at_low)
        high, at_high = jnp.where(lowers, cut, high), jnp.where(lowers, count, at_high)
    stalled = high - low > (interval.high - interval.low) // _PARTS
    return _Interval(low, high, at_low, at_high, stalled)


def _even_cuts(interval: _Interval) -> list[jax.Array]:
    """The interval in equal parts."""
    step = jnp.maximum((interval.high - interval.low) // _PARTS, 1)
    return [jnp.minimum(interval.low + part * step, interval.high - 1) for part in range(1, _PARTS)]


def _likely_cuts(interval: _Interval, k: jax.Array) -> list[jax.Array]:
    """Cuts ever closer to where the answer lies if the magnitudes in the interval are spread evenly.

    The closest are a standard deviation away from it, the others as far as an uneven spread may move it.
    """
    low, high, at_low, at_high, _ = interval
    width = (high - low).astype(jnp.float32)
    inside = jnp.maximum(at_low - at_high, 1).astype(jnp.float32)
    middle = width * ((at_low - k).astype(jnp.float32) + 0.5) / inside
    deviation = jnp.maximum(width / (2 * jnp.sqrt(inside)), 1.0)
    places = [middle + distance * deviation for distance in (-64, -8, -1, 0, 1, 8, 64)]
    return [
        jnp.clip(low + jnp.clip(place, 0, width).astype(jnp.int32), low + 1, high - 1) for place in places
    ]


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
    share = k.astype(jnp.float32) / n
    margin = 4 * jnp.sqrt(size * share * (1 - share)) + 2  # four standard deviations, of few a little more
    middle = (1 - share) * size
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
