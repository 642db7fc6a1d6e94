"""The kernels on host arrays: numpy, one cache-sized block after the other, exact on the bits."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pamctl_kernels.leaf import FloatFormat, check_pair, format_of, one_dtype, threshold_for
from pamctl_kernels.top_p import important_count
from pamctl_kernels.tree import leaves_of, map_tree

Bits = np.ndarray[Any, np.dtype[Any]]
Block = tuple[Any, ...]

_BLOCK = 1 << 17  # elements: an array of 512 kB and its few companions stay in a second-level cache
_SAMPLE = 1 << 14


def magnitude_threshold(x: Any, top_p: object) -> Any:
    leaves = leaves_of(x)
    dtype = one_dtype(leaves)
    form = format_of(*leaves[0])
    n = sum(leaf.size for _, leaf in leaves)
    k = important_count(top_p, n)
    if k == 0:
        for _ in _magnitudes(leaves, form):  # each is looked through for NaN
            pass
        bits = form.infinity
    elif n <= _SAMPLE:
        bits = _kth_largest(_all_magnitudes(leaves, form), k)
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
    for magnitudes in _magnitudes(leaves, form):
        over_high = magnitudes >= high
        above += int(np.count_nonzero(over_high))
        inside.append(magnitudes[(magnitudes > low) != over_high])
    kept = sum(part.size for part in inside)
    if above < k <= above + kept:
        return _kth_largest(np.concatenate(inside), k - above)
    edge = high if k <= above else low
    over_edge = at_edge = 0
    for magnitudes in _magnitudes(leaves, form):
        over_edge += int(np.count_nonzero(magnitudes > edge))
        at_edge += int(np.count_nonzero(magnitudes == edge))
    if over_edge < k <= over_edge + at_edge:
        return edge
    return _kth_largest(_all_magnitudes(leaves, form), k)


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


def sign_conflicts(w: Any, g: Any, threshold: Any) -> Any:
    def leaf_conflicts(name: str, w: Any, g: Any, threshold: Any) -> Bits:
        mask = np.empty(np.shape(w), bool)
        for block, found in _conflicts(name, w, g, threshold):
            mask[block] = found
        return mask

    return map_tree(leaf_conflicts, w, g, _threshold_tree(w, threshold))


def realign(w: Any, g: Any, threshold: Any, reinit: str, per_layer: bool) -> tuple[Any, Any]:
    counts: dict[str, Any] = {}

    def realign_leaf(name: str, w: Any, g: Any, threshold: Any) -> Any:
        aligned = np.empty_like(w)
        integer = format_of(name, w).integer
        counts[name] = np.zeros(np.shape(w)[:1] if per_layer else (), np.int64)
        for block, found in _conflicts(name, w, g, threshold):
            old = w[block].view(integer)
            new = g[block].view(integer) if reinit == "global" else 0
            # A select without branches: np.where and masked copies take ten times as long on a random mask.
            aligned[block].view(integer)[...] = old ^ ((old ^ new) * found)
            if per_layer:
                counts[name][block[:1]] += np.count_nonzero(found, axis=tuple(range(1, found.ndim)))
            else:
                counts[name] += np.count_nonzero(found)
        return aligned

    aligned = map_tree(realign_leaf, w, g, _threshold_tree(w, threshold))
    if per_layer:
        return aligned, map_tree(lambda name, _: counts[name], w)
    return aligned, np.int64(sum(counts.values()))


def weighted_average(xs: Sequence[Any], weights: Any) -> Any:
    shares = np.asarray(weights, np.float32)
    idempotent = sum(shares, np.float32(0)) == 1

    def average_leaf(name: str, *leaves: Any) -> Any:
        for leaf in leaves:
            format_of(name, leaf)
            if leaf.shape != leaves[0].shape:
                raise ValueError(f"{name} has shapes {leaves[0].shape} and {leaf.shape}")
        average = np.empty_like(leaves[0])
        for block in _blocks(average.shape):
            first, *others = (leaf[block].astype(np.float32) for leaf in leaves)
            total = first * shares[0]
            same = np.full(total.shape, idempotent)
            for other, share in zip(others, shares[1:], strict=True):
                same &= first.view(np.int32) == other.view(np.int32)
                other *= share
                total += other
            np.copyto(total, first, where=same)
            if np.isnan(total).any():
                raise ValueError(f"{name} has a weighted average of NaN: it holds NaN or opposite infinities")
            average[block] = total
        return average

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return map_tree(average_leaf, *xs)


def _blocks(shape: tuple[int, ...], prefix: Block = ()) -> Iterator[Block]:
    """Indices that cut an array of `shape` into pieces of at most `_BLOCK` elements, in memory order."""
    if math.prod(shape) <= _BLOCK:
        yield (*prefix, ...)
        return
    step = max(_BLOCK // math.prod(shape[1:]), 1)
    for start in range(0, shape[0], step):
        block = slice(start, start + step)
        if step == 1:
            yield from _blocks(shape[1:], (*prefix, block))
        else:
            yield (*prefix, block, ...)


def _magnitudes(leaves: Sequence[tuple[str, Any]], form: FloatFormat) -> Iterator[Bits]:
    for name, leaf in leaves:
        for block in _blocks(leaf.shape):
            yield _magnitude(name, leaf[block].view(form.integer), form)


def _all_magnitudes(leaves: Sequence[tuple[str, Any]], form: FloatFormat) -> Bits:
    return np.concatenate([magnitudes.ravel() for magnitudes in _magnitudes(leaves, form)])


def _magnitude(name: str, bits: Bits, form: FloatFormat) -> Bits:
    magnitude = bits & form.magnitude_mask
    if magnitude.max(initial=0) > form.infinity:
        raise ValueError(f"{name} holds NaN")
    return magnitude


def _conflicts(name: str, w: Any, g: Any, threshold: Any) -> Iterator[tuple[Block, Bits]]:
    """Per block of one leaf: where |g| >= threshold, g != 0 and the signs differ."""
    check_pair(name, w, g)
    form = format_of(name, w)
    limit = np.asarray(threshold_for(name, threshold, g)).view(form.integer)
    _magnitude(f"the threshold of {name}", limit, form)
    limit = np.broadcast_to(np.maximum(limit, 1), g.shape)  # 1: the smallest g that is not zero
    for block in _blocks(w.shape):
        w_bits, g_bits = w[block].view(form.integer), g[block].view(form.integer)
        _magnitude(f"{name} of w", w_bits, form)
        conflict = _magnitude(f"{name} of g", g_bits, form) >= limit[block]
        # w with the sign of g taken off: a positive integer where, and only where, w has that sign.
        conflict &= (w_bits ^ (g_bits & ~form.magnitude_mask)) <= 0
        yield block, conflict


def _threshold_tree(w: Any, threshold: Any) -> Any:
    return threshold if type(threshold) in (dict, list, tuple) else map_tree(lambda *_: threshold, w)
