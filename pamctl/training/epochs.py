"""Which examples a step sees: a function of the seed and the step alone, so nothing has to be remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Visits:
    """Some examples of a split, each at one of its visits; a visit is known by (seed, example, epoch).

    Attributes:
        examples: (b,) indices into the split.
        epochs: (b,) how often each was seen before.
    """

    seed: int
    examples: Indices
    epochs: Indices

    @classmethod
    def first(cls, examples: Sequence[int] | Indices, seed: int = 0) -> Self:
        """The first visits of some examples."""
        indices = np.asarray(examples, np.int64)
        return cls(seed, indices, np.zeros_like(indices))

    def __len__(self) -> int:
        return len(self.examples)

    def taken(self, rows: Indices | NDArray[np.bool_], start: int = 0) -> "Visits":
        """Some of the visits, to a split that begins at the index `start` of this one."""
        return Visits(self.seed, self.examples[rows] - start, self.epochs[rows])

    def followed_by(self, other: "Visits", start: int) -> "Visits":
        """These, then others of the same seed to a split that lies behind at the index `start`."""
        examples = np.concatenate([self.examples, start + other.examples])
        return Visits(self.seed, examples, np.concatenate([self.epochs, other.epochs]))


def batch_visits(examples: int, batch_size: int, seed: int, step: int) -> Visits:
    """Return what optimiser step `step` (1-based) sees of a split of `examples`: (batch_size,) visits.

    The steps walk through one permutation after another, each keyed by (seed, epoch); a batch may straddle
    two of them.
    """
    epochs, places = np.divmod(np.arange((step - 1) * batch_size, step * batch_size), examples)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        indices[of_epoch] = epoch_order(examples, seed, int(epoch))[places[of_epoch]]
    return Visits(seed, indices, epochs)


@lru_cache(maxsize=16)
def epoch_order(examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one pass: a permutation of range(examples)."""
    # Sorted raw draws, because numpy promises the bits of Philox across releases but not its `permutation`.
    draws = np.random.Philox(key=[seed, epoch]).random_raw(examples)
    return np.argsort(draws, kind="stable")


def steps_of(epochs: int, examples: int, batch_size: int) -> int:
    """Return the optimiser steps that `epochs` passes take; the last batch runs into the next pass."""
    return -(-epochs * examples // batch_size)
