"""The exact threshold of host arrays: a sample brackets it, one pass keeps what lies in the bracket."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import Bits, all_magnitudes, magnitudes_of
from pamctl_kernels.leaf import FloatFormat, format_of, one_dtype
from pamctl_kernels.top_p import important_count
from pamctl_kernels.tree import leaves_of

_SAMPLE = 1 << 14


def magnitude_threshold(x: Any, top_p: object) -> Any:
    leaves = leaves_of(x)
    dtype = one_dtype(leaves)
    form = format_of(*leaves[0])
    n = sum(leaf.size for _, leaf in leaves)
    k = important_count(top_p, n)
    if k == 0:
        for _ in magnitudes_of(leaves, form):  # each is looked through for NaN
            pass
        bits = form.infinity
    elif n <= _SAMPLE:
        bits = _kth_largest(all_magnitudes(leaves, form), k)
    else:
        bits = _kth_largest_streamed(leaves, form, k, n)
    return np.asarray(bits, form.integer).view(dtype)[()]


def _kth_largest(magnitudes: Bits, k: int) -> int:
    return int(np.partition(magnitudes, magnitudes.size - k)[magnitudes.size - k])


def _kth_largest_streamed(leaves: Sequence[tuple[str, Any]], form: FloatFormat, k: int, n: int) -> int:
    """Bracket the answer with a sample, then keep only what one pass finds inside the bracket.

    Floyd and Rivest's SELECT (1975). A bracket that misses costs time, never the answer.
    """
    low, high = _bracket(leaves, form, k / n)
    above, inside = 0, []
    for magnitudes in magnitudes_of(leaves, form):
        over_high = magnitudes >= high
        above += int(np.count_nonzero(over_high))
        inside.append(magnitudes[(magnitudes > low) != over_high])
    kept = sum(part.size for part in inside)
    if above < k <= above + kept:
        return _kth_largest(np.concatenate(inside), k - above)
    edge = high if k <= above else low
    over_edge = at_edge = 0
    for magnitudes in magnitudes_of(leaves, form):
        over_edge += int(np.count_nonzero(magnitudes > edge))
        at_edge += int(np.count_nonzero(magnitudes == edge))
    if over_edge < k <= over_edge + at_edge:
        return edge
    return _kth_largest(all_magnitudes(leaves, form), k)


def _bracket(leaves: Sequence[tuple[str, Any]], form: FloatFormat, share: float) -> tuple[int, int]:
    """Two magnitudes (as bits) which, but for bad luck in 10^4, have the largest `share` end between them."""
    draw = np.random.default_rng(0)
    n = sum(leaf.size for _, leaf in leaves)
    parts = []
    for leaf in (leaf for _, leaf in leaves if leaf.size):
        at = draw.integers(0, leaf.size, math.ceil(_SAMPLE * leaf.size / n))
        parts.append(leaf.flat[at].view(form.integer) & form.magnitude_mask)
    sample = np.sort(np.concatenate(parts))
    middle = (1 - share) * sample.size
    margin = 2 * math.sqrt(sample.size)  # four standard deviations of a sampled median, more of other ranks
    below, over = int(middle - margin), int(middle + margin)
    low = int(sample[below]) if below >= 0 else -1
    high = int(sample[over]) if over < sample.size else form.infinity
    return low, high
