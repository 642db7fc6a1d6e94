"""What a combination asks of its weights beyond their being numbers."""

import numpy as np

from pamctl.merging.methods.method import Float64
from pamctl.refusal import UsageRefusal


def normalised(weights: Float64, method: str) -> Float64:
    """The weights divided by their sum; they may be negative.

    Raises:
        UsageRefusal: the sum is 0, up to rounding.
    """
    total = float(weights.sum())
    if abs(total) <= 1e-12 * float(np.abs(weights).sum()):
        listed = ",".join(f"{weight:g}" for weight in weights)
        raise UsageRefusal(
            f"{method} divides by the sum of the weights, and that of {listed} is 0",
            "give weights whose sum is not 0",
        )
    return weights / total


def refuse_weights(weights: Float64, method: str, way_on: str) -> None:
    """Refuse weights other than 1 where the method's definition has no place for them."""
    if (weights != 1.0).any():
        listed = ",".join(f"{weight:g}" for weight in weights)
        raise UsageRefusal(f"{method} takes no weights, and {listed} are given", way_on)
