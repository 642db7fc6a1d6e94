"""PAM's arithmetic on weights: exact magnitude threshold, sign conflicts, realignment, weighted average.

Every function takes one array or a pytree of them, float32, float16 or bfloat16, and has two back-ends
that give the same answer. Host arrays (numpy, in nested dict, list and tuple) are worked on by numpy and
never import jax. Where any leaf is a jax array or tracer, a jitted program runs on the device that holds
it, sharded or not, and nothing waits for its result. A wrong structure, shape or dtype raises ValueError
or TypeError on both.

NaN is refused. The host raises ValueError naming the leaf. A device cannot raise without a round trip, so
the refusal is a value to look at when results are next read: threshold NaN, the count of `realign` -1.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

__all__ = ["magnitude_threshold", "realign", "sign_conflicts", "weighted_average"]


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
    w: Any, g: Any, threshold: Any, reinit: Literal["global", "zero"] = "global", *, per_layer: bool = False
) -> tuple[Any, Any]:
    """`w` with every conflicting weight (see `sign_conflicts`) put back, and how many were.

    `reinit` says to what: the weight of `g` ("global") or 0 ("zero"). The count is one integer over all
    leaves (int32 on a device); with `per_layer`, a pytree like `w` of counts along each leaf's leading
    axis: (L,) for a leaf (L, in, r). On a device a count is -1 where what it counts in `w`, `g` or
    `threshold` holds NaN.
    """
    if reinit not in ("global", "zero"):
        raise ValueError(f"reinit is {reinit!r}: give 'global' or 'zero'")
    return _back_end(w, g, threshold).realign(w, g, threshold, reinit, per_layer)


def weighted_average(xs: Sequence[Any], weights: Any) -> Any:
    """The sum of weights[i] * xs[i], accumulated in float32 in that order, in the dtype of xs[0].

    The weights need not sum to 1. Where they do (in float32), elements equal in all of `xs` stay, bit for
    bit. A device that flushes subnormals (a CPU or TPU under XLA) takes other ones for zero in the sum.
    """
    if not len(xs):
        raise ValueError("there is nothing to average")
    if len(xs) != len(weights):
        raise ValueError(f"{len(xs)} to average but {len(weights)} weights")
    return _back_end(*xs, weights).weighted_average(xs, weights)


def _back_end(*trees: Any) -> ModuleType:
    jax = sys.modules.get("jax")
    if jax is not None and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees)):
        from pamctl_kernels import device

        return device
    from pamctl_kernels import host

    return host
