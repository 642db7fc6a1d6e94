"""The exact k-th largest magnitude over a stream: a histogram of its upper bits, then one of its lower."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from pamctl_kernels.leaf import FloatFormat, format_of

Rank = Callable[[int], int]
Pool = TypeVar("Pool")
Counts = np.ndarray[Any, np.dtype[np.int64]]

_LOWER_BITS = (
    16  # of a float32; its other 15 magnitude bits, and all those of the 16-bit formats, are "upper"
)


class Histogram(Protocol):
    """How often each upper half of a magnitude occurs, or each lower half below the upper half `upper`."""

    def add(self, name: str, array: Any) -> None:
        """Count `array` in; ValueError if it holds NaN."""

    def counts(self) -> Counts:
        """(2^15,) counts of upper halves, or (2^16,) of lower ones."""


NewHistogram = Callable[[FloatFormat, int | None], Histogram]


class _Pool:
    """All arrays at one position of the stream's tuples, and what is known of their k-th magnitude."""

    def __init__(self, name: str, first: Any, new_histogram: NewHistogram) -> None:
        self.form, self.dtype = format_of(name, first), first.dtype
        self._name, self._new_histogram = name, new_histogram
        self._histogram = new_histogram(self.form, None)
        self._size = 0
        self._k = self._in_bin = 0
        self.bits = self.form.infinity
        self.open = False

    def add(self, array: Any) -> None:
        format_of(self._name, array)
        if array.dtype != self.dtype:
            raise TypeError(f"{self._name} has dtypes {self.dtype} and {array.dtype}: cast one of them")
        self._histogram.add(self._name, array)
        self._size += array.size

    def settle_upper(self, rank: Rank) -> None:
        counts = self._histogram.counts()
        self._k = checked_rank(self._name, rank, self._size)
        if self._k == 0:
            return
        self.bits, self._k, self._in_bin = _bin_of_rank(counts, self._k)
        if self.form.magnitude_mask.bit_length() > _LOWER_BITS:
            self.open = True
            self._histogram = self._new_histogram(self.form, self.bits)

    def settle_lower(self) -> None:
        counts = self._histogram.counts()
        if counts.sum() != self._in_bin:
            raise ValueError(f"{self._name} held other weights when the stream was read again")
        lower, _, _ = _bin_of_rank(counts, self._k)
        self.bits = self.bits << _LOWER_BITS | lower


def kth_largest_magnitudes(
    first: Iterable[Sequence[Any]],
    again: Iterable[Sequence[Any]],
    k: Rank | Sequence[Rank],
    new_histogram: NewHistogram,
) -> tuple[np.generic, ...]:
    """By histograms alone, whatever the weights are.

    Args:
        first: the tuples of the first pass.
        again: those of the second.
    """
    pools: list[_Pool] = []
    for arrays in first:
        if not pools:
            pools = [_Pool(f"array {i}", x, new_histogram) for i, x in enumerate(arrays)]
        for pool, array in paired(pools, arrays):
            pool.add(array)
    for pool, rank in zip(pools, ranks_of(k, len(pools)), strict=True):
        pool.settle_upper(rank)
    if any(pool.open for pool in pools):
        _read_again(again, pools)
    return tuple(np.asarray(pool.bits, pool.form.integer).view(pool.dtype)[()] for pool in pools)


def ranks_of(k: Rank | Sequence[Rank], pools: int) -> list[Rank]:
    """One rank a pool."""
    ranks = [k] * pools if callable(k) else list(k)
    if len(ranks) != pools:
        raise ValueError(f"the stream holds {pools} arrays at a time but there are {len(ranks)} k")
    return ranks


def checked_rank(name: str, rank: Rank, size: int) -> int:
    """How many of `size` weights are kept."""
    k = rank(size)
    if not 0 <= k <= size:
        raise ValueError(f"{name} has {size} weights, of which k = {k} cannot be kept")
    return k


def _read_again(stream: Iterable[Sequence[Any]], pools: Sequence[_Pool]) -> None:
    for arrays in stream:
        for pool, array in paired(pools, arrays):
            if pool.open:
                pool.add(array)
    for pool in pools:
        if pool.open:
            pool.settle_lower()


def paired(pools: Sequence[Pool], arrays: Sequence[Any]) -> Iterator[tuple[Pool, Any]]:
    """What belongs to each pool; ValueError where the tuples are not all of one length."""
    if len(arrays) != len(pools):
        raise ValueError(f"the stream holds {len(pools)} arrays at a time, then {len(arrays)}")
    return zip(pools, arrays, strict=True)


def _bin_of_rank(counts: Counts, k: int) -> tuple[int, int, int]:
    """The bin of the k-th largest, its rank among those in that bin, and how many these are."""
    reached = np.cumsum(counts[::-1])
    at = int(np.searchsorted(reached, k))
    in_bin = int(counts[::-1][at])
    return counts.size - 1 - at, k - int(reached[at]) + in_bin, in_bin
