"""What the tests of DARE and DELLA share."""

from typing import Any

import numpy as np

from pamctl.merging.methods.method import Float32, Method
from tests.merging.methods.elementwise_cases import merged, random_inputs


def mean_over_seeds(method: Method, inputs: list[Float32], draws: int, **given: Any) -> tuple[Any, Any]:
    """The mean result of many draws and how far from its expected value it may be, five standard errors."""
    results = np.stack([merged(method, inputs, seed=seed, **given) for seed in range(draws)]).astype(float)
    return results.mean(axis=0), 5 * results.std(axis=0) / np.sqrt(draws) + 1e-6


def norms(method: Method, seed: int, **given: Any) -> tuple[float, float]:
    """The sums of magnitudes of an adapter and of what is left of it."""
    (x,) = random_inputs(seed, 1, (30, 40))
    left = merged(method, [x], seed=seed, variant="mergekit", **given)
    assert 0 < np.count_nonzero(left) < x.size
    return float(np.abs(x).sum(dtype=np.float64)), float(np.abs(left).sum(dtype=np.float64))
