"""The k-th largest magnitude of streams of host arrays: a sample brackets it, or histograms find it.

The bracket takes a fifth of the time; the histograms need no luck.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pamctl_kernels.host.blocks import Bits, blocks, magnitude_of
from pamctl_kernels.leaf import FloatFormat, format_of
from pamctl_kernels.stream import Rank, checked_rank, paired, ranks_of

_SAMPLED = 61  # one weight in so many: a prime, so that a sample of rows is not one of a few columns
_MOST_KEPT = 1 << 24  # weights that a bracket may hold: 64 MB

Work = Callable[[Sequence[Any]], list[Any]]
Passes = Callable[[Work], Iterable[list[Any]]]
"""Does work on every tuple of a stream, in its order, and gives what comes of each."""


class Histogram:
    """See `pamctl_kernels.stream.Histogram`; one buffer of indices serves every block."""

    def __init__(self, form: FloatFormat, upper: int | None) -> None:
        self._form, self._upper = form, upper
        self._shift = 8 * form.integer.itemsize - 16
        self._counts = np.zeros(1 << (15 if upper is None else 16), np.int64)
        self._infinite = form.infinity >> self._shift

    def add(self, name: str, array: Any) -> None:
        for block in blocks(array.shape):
            bits = array[block].view(self._form.integer).ravel()
            if self._upper is None:
                self._count_upper(name, bits)
            else:
                self._count_lower(bits)

    def counts(self) -> Bits:
        return self._counts

    def _count_upper(self, name: str, bits: Bits) -> None:
        index = np.right_shift(bits, self._shift) if self._shift else bits
        counts = np.bincount((index & 0x7FFF).astype(np.intp), minlength=self._counts.size)
        if counts[self._infinite :].any() and (bits & self._form.magnitude_mask).max() > self._form.infinity:
            raise ValueError(f"{name} holds NaN")
        self._counts += counts

    def _count_lower(self, bits: Bits) -> None:
        inside = (bits >> self._shift) & 0x7FFF == self._upper
        self._counts += np.bincount(bits[inside] & 0xFFFF, minlength=self._counts.size)


class _Part(NamedTuple):
    """How many magnitudes of an array lie where, and those inside the bracket.

    Those equal to an end are inside too, or where they are many they are counted.
    """

    size: int
    above: int
    at_high: int
    at_low: int
    inside: Bits


@dataclass
class _Bracket:
    """All arrays at one position of the stream's tuples, and the magnitudes between which the k-th lies.

    Args:
        low, high: the ends of the bracket, as bits.
    """

    name: str
    form: FloatFormat
    dtype: np.dtype[Any]
    size: int = 0
    k: int = 0
    low: int = -1
    high: int = 0
    samples: list[Bits] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)

    def settle(self, rank: Rank) -> None:
        """Choose the bracket, but for bad luck in 10^4 around the answer."""
        self.k = checked_rank(self.name, rank, self.size)
        sample = np.sort(np.concatenate(self.samples))
        self.samples.clear()
        middle = (1 - self.k / max(self.size, 1)) * sample.size
        margin = 2 * math.sqrt(sample.size)  # four standard deviations of a sampled median
        below, over = int(middle - margin), int(middle + margin)
        self.low = int(sample[below]) if 0 <= below < sample.size else -1
        self.high = int(sample[over]) if over < sample.size else self.form.infinity + 1

    def answer(self) -> int | None:
        """The k-th magnitude, as bits; None where the bracket misses it."""
        if sum(part.size for part in self.parts) != self.size:
            raise ValueError(f"{self.name} held other weights when the stream was read again")
        if self.k == 0:
            return self.form.infinity
        inside = np.concatenate([part.inside for part in self.parts])
        left = self.k - sum(part.above for part in self.parts)
        at_high, at_low = (sum(part[place] for part in self.parts) for place in (2, 3))
        if left <= 0 or left > at_high + inside.size + at_low:
            return None
        if left <= at_high:
            return self.high
        place = inside.size - (left - at_high)
        return int(np.partition(inside, place)[place]) if place >= 0 else self.low


def kth_largest_by_bracket(passes: Passes, k: Rank | Sequence[Rank]) -> tuple[np.generic, ...] | None:
    """The answers in two passes, or None where a bracket misses or holds too much."""
    pools: list[_Bracket] = []
    for looks in passes(_look):
        if not pools:
            pools = [
                _Bracket(f"array {i}", format_of(f"array {i}", x), x.dtype) for i, (x, _) in enumerate(looks)
            ]
        for pool, (like, sample) in paired(pools, looks):
            if like.dtype != pool.dtype:
                raise TypeError(f"{pool.name} has dtypes {pool.dtype} and {like.dtype}: cast one of them")
            pool.size += like.size
            pool.samples.append(sample)
    for pool, rank in zip(pools, ranks_of(k, len(pools)), strict=True):
        pool.settle(rank)
    kept = 0
    for parts in passes(lambda arrays: [_parted(pool, x) for pool, x in paired(pools, arrays)]):
        for pool, part in paired(pools, parts):
            pool.parts.append(part)
            kept += part.inside.size
        if kept > _MOST_KEPT:
            return None
    answers: list[Any] = []
    for pool in pools:
        bits = pool.answer()
        if bits is None:
            return None
        answers.append(np.asarray(bits, pool.form.integer).view(pool.dtype)[()])
    return tuple(answers)


def _look(arrays: Sequence[Any]) -> list[tuple[Any, Bits]]:
    """Of each array its size and dtype, and a few of its magnitudes."""
    return [(_Like(x), _sample(f"array {i}", x)) for i, x in enumerate(arrays)]


class _Like:
    """What is remembered of an array: its size and its dtype."""

    def __init__(self, x: Any) -> None:
        self.size, self.dtype = x.size, x.dtype


def _sample(name: str, x: Any) -> Bits:
    form = format_of(name, x)
    sample: Bits = (
        x.reshape(-1)[:: _SAMPLED if x.size > _SAMPLED else 1].view(form.integer) & form.magnitude_mask
    )
    return sample


def _parted(pool: _Bracket, x: Any) -> _Part:
    above = at_high = at_low = 0
    kept = [np.empty(0, pool.form.integer)]
    for block in blocks(x.shape):
        magnitudes = magnitude_of(pool.name, x[block].view(pool.form.integer).ravel(), pool.form)
        outside, under = magnitudes > pool.high, magnitudes < pool.low
        above += int(np.count_nonzero(outside))
        outside |= under
        inside = magnitudes[~outside]
        if 8 * inside.size > magnitudes.size:  # many are equal, such as zeros: those are counted, not kept
            high, low = inside == pool.high, inside == pool.low
            at_high, at_low = at_high + int(np.count_nonzero(high)), at_low + int(np.count_nonzero(low))
            inside = inside[~(high | low)]
        kept.append(inside)
    return _Part(x.size, above, at_high, at_low, np.concatenate(kept))
