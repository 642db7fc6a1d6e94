"""The `average` method: the weighted mean, of factors or of deltas.

In factor space A = sum w_i A_i and B = sum w_i s_i B_i, which is what PAM does with the global and the task
adapter (Algorithm 1, w = 1/2) and what `Avg` in its tables means. In delta space the result is
sum w_i s_i B_i A_i itself.
"""

from collections.abc import Sequence

import numpy as np
from pamctl_kernels import weighted_average

from pamctl.adapters.factors import LoraFactors
from pamctl.refusal import UsageRefusal


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
    given = given / given.max()
    rounded = (given / given.sum()).astype(np.float32)
    # Adapters that agree in a number keep its bits where the float32 shares, added in order, give exactly 1.
    last = int(np.flatnonzero(rounded)[-1])
    rounded[last] = max(np.float32(1) - sum(rounded[:last], np.float32(0)), np.float32(0))
    return tuple(float(share) for share in rounded)


def average_factors(factors: Sequence[LoraFactors], weights: Sequence[float]) -> LoraFactors:
    """The mean of a and the mean of scale-folded b of one module, shape by shape equal."""
    folded = [each.folded() for each in factors]
    a = weighted_average([each.a for each in folded], weights)
    b = weighted_average([each.b for each in folded], weights)
    return LoraFactors(a, b, layer=folded[0].layer)
