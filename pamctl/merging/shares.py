"""Weights that make an average."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pamctl.refusal import UsageRefusal

LARGEST = float(np.finfo(np.float32).max)
"""Of a weight: merging is done in float32."""


def shares(weights: Sequence[float] | None, adapters: int) -> tuple[float, ...]:
    """The weights divided by their sum, each a float32, together exactly 1; by default all equal.

    Raises:
        UsageRefusal: not one weight an adapter, or a weight that is negative or not finite, or all are 0.
    """
    given = np.asarray([1.0] * adapters if weights is None else weights, np.float64)
    if len(given) != adapters:
        raise UsageRefusal(f"{len(given)} weights for {adapters} adapters", "give one weight an adapter")
    if not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
        listed = ",".join(f"{weight:g}" for weight in given)
        raise UsageRefusal(
            f"weights {listed} do not make an average", "give weights of at least 0, not all 0"
        )
    if (given <= 1).all() and (given == given.astype(np.float32)).all() and _adds_up(given):
        return tuple(float(share) for share in given)
    given = given / given.max()
    rounded = (given / given.sum()).astype(np.float32)
    # Adapters that agree in a number keep its bits where the float32 shares, added in order, give exactly 1.
    last = int(np.flatnonzero(rounded)[-1])
    rounded[last] = max(np.float32(1) - sum(rounded[:last], np.float32(0)), np.float32(0))
    return tuple(float(share) for share in rounded)


def _adds_up(given: NDArray[np.float64]) -> bool:
    """Whether they are shares already, which then stay as they are."""
    return bool(sum(given.astype(np.float32), np.float32(0)) == 1)
