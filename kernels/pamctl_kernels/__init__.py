"""Arithmetic on weights: exact magnitude thresholds, sign conflicts, realignment, averages, sign elections.

Every function takes one array or a pytree of them, float32, float16 or bfloat16, and has two back-ends
that give the same answer. Host arrays (numpy, in nested dict, list and tuple) are worked on by numpy and
never import jax. Where any leaf is a jax array or tracer, a jitted program runs on the device that holds
it, sharded or not, and nothing waits for its result, but for a threshold over a stream. A wrong structure,
shape or dtype raises ValueError or TypeError on both.

NaN is refused. The host raises ValueError naming the leaf. A device cannot raise without a round trip, so
the refusal is a value to look at when results are next read: threshold NaN, the count of `realign` -1.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from types import ModuleType
from typing import Any, Literal

from pamctl_kernels import stream as _stream

__all__ = [
    "elect_signs",
    "kth_largest_magnitudes",
    "magnitude_threshold",
    "merge_agreeing",
    "realign",
    "sign_conflicts",
    "trim",
    "weighted_average",
]


def magnitude_threshold(x: Any, top_p: object) -> Any:
    """The k-th largest of |x|, k = ceil(top_p / 100 * n), over the n elements of all leaves of `x` pooled.

    Exact: |x| >= threshold keeps k elements, and more only where magnitudes tie. `top_p` is a number from
    0 to 100, read as its decimal text; 0 gives +inf, which no finite weight reaches. The threshold is a
    scalar of the leaves' dtype, of which there must be one.

    >>> import numpy as np
    >>> magnitude_threshold(np.array([3, -4, 0.5, -0.0], np.float32), top_p=50)
    np.float32(3.0)
    """
    return _back_end(x).magnitude_threshold(x, top_p)


def sign_conflicts(w: Any, g: Any, threshold: Any) -> Any:
    """Boolean masks, shaped as `w`: where |g| >= threshold, g != 0 and sign(w) != sign(g).

    A zero w has neither sign, so it conflicts. Threshold 0 marks every difference of sign, important or not.
    `threshold` is one number or array, or a pytree like `w` of them; each must broadcast to its leaf of `g`,
    arrays in that leaf's dtype.
    On a device a NaN threshold marks nothing, and a mask cannot tell of a NaN in `w` or `g`: `realign` does.
    """
    return _back_end(w, g, threshold).sign_conflicts(w, g, threshold)


def realign(
    w: Any,
    g: Any,
    threshold: Any,
    reinit: Literal["global", "zero"] = "global",
    *,
    per_layer: bool = False,
    out: Any = None,
) -> tuple[Any, Any]:
    """`w` with every conflicting weight (see `sign_conflicts`) put back, and how many were.

    `reinit` says to what: the weight of `g` ("global") or 0 ("zero"). The count is one integer over all
    leaves (int32 on a device); with `per_layer`, a pytree like `w` of counts along each leaf's leading
    axis: (L,) for a leaf (L, in, r). On a device a count is -1 where what it counts in `w`, `g` or
    `threshold` holds NaN. On the host the result may be written to `out`, arrays like `w` or `w` itself:
    memory that was touched before is several times as fast as new memory.
    """
    if reinit not in ("global", "zero"):
        raise ValueError(f"reinit is {reinit!r}: give 'global' or 'zero'")
    return _back_end(w, g, threshold).realign(w, g, threshold, reinit, per_layer, out)


def weighted_average(xs: Sequence[Any], weights: Any, *, out: Any = None) -> Any:
    """The sum of weights[i] * xs[i], accumulated in float32 in that order, in the dtype of xs[0].

    The weights need not sum to 1. Where they do (in float32), elements equal in all of `xs` stay, bit for
    bit. A device that flushes subnormals (a CPU or TPU under XLA) takes other ones for zero in the sum.
    On the host the result may be written to `out`, arrays like xs[0] or one of `xs`, as in `realign`.
    """
    if not len(xs):
        raise ValueError("there is nothing to average")
    if len(xs) != len(weights):
        raise ValueError(f"{len(xs)} to average but {len(weights)} weights")
    return _back_end(*xs, weights).weighted_average(xs, weights, out)


def kth_largest_magnitudes(
    stream: Iterable[Sequence[Any]], k: Callable[[int], int] | Sequence[Callable[[int], int]]
) -> tuple[Any, ...]:
    """For each position of the stream's tuples, the k-th largest |x| of all arrays that come at it, pooled.

    `stream` gives tuples of N arrays, one dtype a position, any shapes; each iter() must read it anew, from
    the disk as it may be. `k` says of how many elements n which rank is asked for, 0 to n: one callable, or
    N of them. A numpy scalar each, of its position's dtype; +inf where k is 0.

    Exact, holding one tuple and a few MB a position. On the host in two passes, on a device in about eight,
    each at the speed of its memory; where the sample of the first misleads, in at most fifteen. A `map` of
    the stream's own, which does work on each tuple and gives the results in order, is used for them and may
    do that on several cores.

    Waits for the device, so NaN raises ValueError there too. So does a k out of range or a tuple of another
    length; TypeError if the stream can be read only once.

    >>> import numpy as np
    >>> blocks = [(np.array([3, -4], np.float32),), (np.array([0.5], np.float32),)]
    >>> kth_largest_magnitudes(blocks, lambda n: n - 1)
    (np.float32(3.0),)
    """
    if isinstance(stream, Iterator):
        raise TypeError("the stream can be read only once: give one that each iter() reads anew")
    tuples = iter(stream)
    first = next(tuples, None)
    if first is None:
        return ()
    return _stream.kth_largest_magnitudes(_passes(stream, chain([first], tuples)), k, _back_end(first).stream)


def _passes(stream: Any, begun: Iterable[Any]) -> Callable[[Callable[[Any], Any]], Iterable[Any]]:
    """Work on a stream, in the stream's own way where it has one, else tuple by tuple.

    Args:
        begun: the stream, its first tuple read.
    """
    if hasattr(stream, "map"):
        over: Callable[[Callable[[Any], Any]], Iterable[Any]] = stream.map
        return over
    readings: Iterator[Iterable[Any]] = chain([begun], repeat(stream))
    return lambda work: map(work, next(readings))


def trim(x: Any, threshold: Any) -> Any:
    """`x` where |x| >= threshold, else +0.

    `threshold` is one number or array, or a pytree like `x` of them, as in `sign_conflicts`; None keeps all.
    A device gives NaN where `x` is NaN, and everywhere if `threshold` is.
    """
    return _back_end(x, threshold).trim(x, threshold)


def elect_signs(xs: Sequence[Any], weights: Any = None, by: Literal["total", "frequency"] = "total") -> Any:
    """The sign, int8 +1, 0 or -1, of the sum of weights[i] * xs[i] ("total") or of their signs ("frequency").

    Summed in float32 in that order; without `weights` each is 1, and "frequency" takes none. Infinities that
    cancel elect 0. A device that flushes subnormals takes them for zero in the "total", and elects 0 where
    the sum is NaN.
    """
    if by not in ("total", "frequency"):
        raise ValueError(f"by is {by!r}: give 'total' or 'frequency'")
    if by == "frequency" and weights is not None:
        raise ValueError("signs that are counted take no weights")
    _check_weights(xs, weights)
    return _back_end(*xs, weights).elect_signs(xs, weights, by)


def merge_agreeing(
    xs: Sequence[Any],
    weights: Any = None,
    thresholds: Sequence[Any] | None = None,
    *,
    elect: Literal["total", "weighted", "frequency"] = "total",
    on_tie: Literal[1, 0, -1] = 1,
    divide: Literal["count", "weight", "none", "max"] = "count",
) -> Any:
    """TIES merging in one step (Yadav et al., 2023, section 3): trim, elect a sign, join what agrees with it.

    Each x is trimmed by its threshold (see `trim`; None for no trim). The elected sign is that of the sum of
    the trimmed xs ("total"), of weights[i] times them ("weighted"), or of their signs ("frequency"); where
    that is 0 it is `on_tie`, with 0 for none. The result, in the dtype of xs[0], is the sum of weights[i] *
    xs[i] over the xs of that sign, in that order, divided by their number ("count"), by the sum of their
    weights ("weight": 0 where that is 0), or by nothing ("none"); or of these products the one of largest
    magnitude, the first if they tie ("max"). A trimmed entry or a zero agrees with nothing. Without `weights`
    each is 1. All sums and products are float32, and no zero of the result is negative.

    The host raises ValueError for NaN in `xs`, and in the result, which infinite weights can bring; a device
    gives NaN there. A device that flushes subnormals takes them for zero in sums and products.
    """
    if elect not in ("total", "weighted", "frequency"):
        raise ValueError(f"elect is {elect!r}: give 'total', 'weighted' or 'frequency'")
    if on_tie not in (1, 0, -1):
        raise ValueError(f"on_tie is {on_tie!r}: give 1, 0 or -1")
    if divide not in ("count", "weight", "none", "max"):
        raise ValueError(f"divide is {divide!r}: give 'count', 'weight', 'none' or 'max'")
    _check_weights(xs, weights)
    thresholds = [None] * len(xs) if thresholds is None else thresholds
    if len(thresholds) != len(xs):
        raise ValueError(f"{len(xs)} to merge but {len(thresholds)} thresholds")
    back_end = _back_end(*xs, weights, thresholds)
    return back_end.merge_agreeing(xs, weights, thresholds, elect, on_tie, divide)


def _check_weights(xs: Sequence[Any], weights: Any) -> None:
    if not len(xs):
        raise ValueError("there is nothing to merge")
    if weights is not None and len(xs) != len(weights):
        raise ValueError(f"{len(xs)} to merge but {len(weights)} weights")


def _back_end(*trees: Any) -> ModuleType:
    jax = sys.modules.get("jax")
    if jax is not None and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees)):
        from pamctl_kernels import device

        return device
    from pamctl_kernels import host

    return host
