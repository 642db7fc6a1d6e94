"""Several tasks learned at once: how often each is seen, and in which order."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pamctl.training.epochs import Visits, epoch_order

Mixing = Literal["proportional", "uniform", "square-root"]
"""How often each task is seen: as often as it would be by itself, all equally often, or between the two by
the square root (temperature 2)."""


def visits_of(alone: Sequence[int], mixing: Mixing) -> tuple[int, ...]:
    """Return how many examples of each task are seen, as many in all as with each task by itself.

    Args:
        alone: how many are seen where each task is learned by itself.
    """
    exponent = {"proportional": 1.0, "square-root": 0.5, "uniform": 0.0}[mixing]
    shares = np.array(alone, np.float64) ** exponent
    ends = np.rint(np.cumsum(shares) / shares.sum() * sum(alone)).astype(np.int64)
    return tuple(int(count) for count in np.diff(ends, prepend=0))


def mixed_visits(
    sizes: tuple[int, ...], visits: tuple[int, ...], batch_size: int, seed: int, step: int
) -> Visits:
    """Return what step `step` (1-based) sees, as indices into the tasks' examples one after the other.

    The visits of all tasks are shuffled as a whole; each task's own visits walk through one permutation of
    its examples after another. What lies behind the last visit begins again at the first.
    """
    order = _order(visits, seed)
    chosen = order[np.arange((step - 1) * batch_size, step * batch_size) % len(order)]
    starts, firsts = np.cumsum((0, *visits)), np.cumsum((0, *sizes))
    tasks = np.searchsorted(starts, chosen, side="right") - 1
    indices, epochs = np.empty((2, batch_size), np.int64)
    for row, (visit, task) in enumerate(zip(chosen - starts[tasks], tasks, strict=True)):
        epochs[row], place = divmod(int(visit), sizes[task])
        indices[row] = firsts[task] + epoch_order(sizes[task], seed, int(epochs[row]))[place]
    return Visits(seed, indices, epochs)


@lru_cache(maxsize=1)
def _order(visits: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """The shuffled visits; its key is one that no task's epoch has."""
    draws = np.random.Philox(key=np.array([seed, 2**64 - 1], np.uint64)).random_raw(sum(visits))
    return np.argsort(draws, kind="stable")
