"""Which examples a step sees: a function of the seed and the step alone, so nothing has to be remembered."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the examples of optimiser step `step` (1-based): (batch_size,) indices below `examples`.

    The steps walk through one permutation after another, each keyed by (seed, epoch); a batch may straddle
    two of them.
    """
    positions = np.arange((step - 1) * batch_size, step * batch_size)
    orders = {
        int(epoch): epoch_order(examples, seed, int(epoch)) for epoch in np.unique(positions // examples)
    }
    return np.array([orders[int(at) // examples][int(at) % examples] for at in positions])


@lru_cache(maxsize=16)
def epoch_order(examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one pass: a permutation of range(examples)."""
    # Sorted raw draws, because numpy promises the bits of Philox across releases but not its `permutation`.
    draws = np.random.Philox(key=[seed, epoch]).random_raw(examples)
    return np.argsort(draws, kind="stable")


def steps_of(epochs: int, examples: int, batch_size: int) -> int:
    """Return the optimiser steps that `epochs` passes take; the last batch runs into the next pass."""
    return -(-epochs * examples // batch_size)
