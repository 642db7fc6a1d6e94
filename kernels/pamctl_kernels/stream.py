"""The exact k-th largest magnitude over a stream of arrays: a sample proposes an interval, counts narrow it.

The interval is [low, high) in the bits of magnitudes: at least k of them reach low, fewer reach high. What is
counted makes it true, so a sample that misleads costs passes and never the answer.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from pamctl_kernels.leaf import FloatFormat, format_of

Bits = np.ndarray[Any, np.dtype[Any]]
Rank = Callable[[int], int]
Pool = TypeVar("Pool")
Passes = Callable[[Callable[[Sequence[Any]], list[Any]]], Iterable[list[Any]]]
"""Does work on every tuple of a stream, in its order, and gives what comes of each."""

_PARTS = 8  # a pass cuts the interval into so many
_MOST_KEPT = 1 << 24  # magnitudes that are collected at most: 64 MB


class BackEnd(Protocol):
    """What is done where the arrays lie; results may be arrays of a device, not yet waited for."""

    def sampled_magnitudes(self, name: str, x: Any) -> Any:
        """Bits of a few of the magnitudes of `x`, one axis."""

    def counts_reaching(self, name: str, x: Any, bits: Sequence[int]) -> Any:
        """How many magnitudes of `x` reach each of `bits`, and last how many are NaN."""

    def magnitudes_within(self, name: str, x: Any, low: int, high: int) -> "Within | None":
        """Those in [low, high), where collecting them pays; ValueError if `x` holds NaN."""


class Within(NamedTuple):
    """Of an array: how many magnitudes reach the interval's end, and those inside it."""

    over: int
    inside: Bits


class _Look(NamedTuple):
    size: int
    dtype: np.dtype[Any]
    sample: Any


@dataclass
class _Pool:
    """All arrays at one position of the stream's tuples, and the interval of their k-th magnitude."""

    name: str
    form: FloatFormat
    dtype: np.dtype[Any]
    size: int = 0
    k: int = 0
    low: int = 0
    high: int = 0
    samples: list[Any] = field(default_factory=list)

    def look(self, look: _Look) -> None:
        if look.dtype != self.dtype:
            raise TypeError(f"{self.name} has dtypes {self.dtype} and {look.dtype}: cast one of them")
        self.size += look.size
        self.samples.append(look.sample)

    def settle(self, rank: Rank) -> tuple[int, int]:
        """The whole interval, and as a proposal the one that, but for bad luck in 10^4, holds the answer."""
        self.k = rank(self.size)
        if not 0 <= self.k <= self.size:
            raise ValueError(f"{self.name} has {self.size} weights, of which k = {self.k} cannot be kept")
        self.high = self.form.infinity + 1
        sample = np.sort(np.concatenate([np.asarray(part) for part in self.samples]))
        self.samples.clear()
        middle = (1 - self.k / max(self.size, 1)) * sample.size
        margin = 2 * math.sqrt(sample.size)  # four standard deviations of a sampled median
        below, over = int(middle - margin), int(middle + margin)
        low = int(sample[below]) if 0 <= below < sample.size else 0
        return low, int(sample[over]) + 1 if over < sample.size else self.high

    def narrow(self, bits: Sequence[int], reached: Sequence[int]) -> None:
        """Believe what was counted."""
        for bound, count in zip(bits, reached, strict=True):
            if count >= self.k:
                self.low = max(self.low, bound)
            else:
                self.high = min(self.high, bound)

    @property
    def is_found(self) -> bool:
        return self.k == 0 or self.high - self.low <= 1

    def cuts(self) -> list[int]:
        """Where the next pass counts: the interval in equal parts."""
        step = max(-(-(self.high - self.low) // _PARTS), 1)
        return [min(self.low + part * step, self.high) for part in range(1, _PARTS)]

    def answer(self) -> Any:
        bits = self.low if self.k else self.form.infinity
        return np.asarray(bits, self.form.integer).view(self.dtype)[()]


def kth_largest_magnitudes(passes: Passes, k: Rank | Sequence[Rank], back_end: BackEnd) -> tuple[Any, ...]:
    pools: list[_Pool] = []
    for looks in passes(lambda arrays: [_look(back_end, i, x) for i, x in enumerate(arrays)]):
        if not pools:
            pools = [_Pool(f"array {i}", _format(look.dtype), look.dtype) for i, look in enumerate(looks)]
        for pool, look in _paired(pools, looks):
            pool.look(look)
    ranks = [k] * len(pools) if callable(k) else list(k)
    if len(ranks) != len(pools):
        raise ValueError(f"the stream holds {len(pools)} arrays at a time but there are {len(ranks)} k")
    proposed = [pool.settle(rank) for pool, rank in zip(pools, ranks, strict=True)]
    if not _collected(passes, pools, proposed, back_end):
        _counted(passes, pools, proposed, back_end)
    while not all(pool.is_found for pool in pools):
        _counted(passes, pools, [pool.cuts() for pool in pools], back_end)
    return tuple(pool.answer() for pool in pools)


def _look(back_end: BackEnd, i: int, x: Any) -> _Look:
    name = f"array {i}"
    format_of(name, x)
    return _Look(x.size, np.dtype(x.dtype), back_end.sampled_magnitudes(name, x))


def _collected(
    passes: Passes, pools: Sequence[_Pool], proposed: Sequence[tuple[int, int]], back_end: BackEnd
) -> bool:
    """Find the answers among the magnitudes in the proposed intervals, collected in one pass.

    Returns:
        Whether that is the back end's way; what was counted narrows the intervals in any case.
    """
    over, inside, sizes = [0] * len(pools), [list[Bits]() for _ in pools], [0] * len(pools)
    kept_in_all = 0

    def collect(arrays: Sequence[Any]) -> list[tuple[int, Within | None]]:
        return [
            (x.size, back_end.magnitudes_within(pool.name, x, *interval))
            for (pool, x), interval in zip(_paired(pools, arrays), proposed, strict=True)
        ]

    for parts in passes(collect):
        for i, (size, within) in enumerate(parts):
            if within is None:
                return False
            sizes[i], over[i] = sizes[i] + size, over[i] + within.over
            inside[i].append(within.inside)
            kept_in_all += within.inside.size
        if kept_in_all > _MOST_KEPT:
            return False
    for i, (pool, (low, high)) in enumerate(zip(pools, proposed, strict=True)):
        if sizes[i] != pool.size:
            raise ValueError(f"{pool.name} held other weights when the stream was read again")
        kept = np.concatenate(inside[i]) if inside[i] else np.empty(0, pool.form.integer)
        pool.narrow((low, high), (over[i] + kept.size, over[i]))
        place = kept.size - (pool.k - over[i])
        if pool.k and 0 <= place < kept.size:
            found = int(np.partition(kept, place)[place])
            pool.low, pool.high = found, found + 1
    return True


def _counted(
    passes: Passes, pools: Sequence[_Pool], bits: Sequence[Sequence[int]], back_end: BackEnd
) -> None:
    """Narrow the intervals by one pass that counts."""

    def count(arrays: Sequence[Any]) -> list[Any]:
        return [
            back_end.counts_reaching(pool.name, x, bounds)
            for (pool, x), bounds in zip(_paired(pools, arrays), bits, strict=True)
        ]

    counted = list(passes(count))
    for i, (pool, bounds) in enumerate(zip(pools, bits, strict=True)):
        *reached, nans = np.sum([np.asarray(counts[i]).astype(np.int64) for counts in counted], axis=0)
        if nans:
            raise ValueError(f"{pool.name} holds NaN")
        pool.narrow(bounds, reached)


def _paired(pools: Sequence[Pool], arrays: Sequence[Any]) -> Iterator[tuple[Pool, Any]]:
    if len(arrays) != len(pools):
        raise ValueError(f"the stream holds {len(pools)} arrays at a time, then {len(arrays)}")
    return zip(pools, arrays, strict=True)


def _format(dtype: np.dtype[Any]) -> FloatFormat:
    return format_of("the stream", np.empty(0, dtype))
