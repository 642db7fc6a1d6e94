"""What host arrays agree on: trimming, sign election, and the merge of what has the elected sign.

Every block is worked on in float32 in buffers made once a leaf, so nothing as large as an array is made but
the result.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import (
    BLOCK,
    Bits,
    Block,
    magnitude_of,
    over_blocks,
    refuse_nan,
    shaped,
    threshold_tree,
)
from pamctl_kernels.leaf import check_shape, format_of, threshold_for
from pamctl_kernels.tree import map_tree

_SIGN = np.iinfo(np.int32).min
_FLOAT32 = np.dtype(np.float32)

Floats = np.ndarray[Any, np.dtype[np.float32]]


def trim(x: Any, threshold: Any) -> Any:
    def trim_leaf(name: str, x: Any, threshold: Any) -> Any:
        bits, trimmed = x.view(format_of(name, x).integer), np.empty_like(x)
        below = _below(name, x, threshold)

        def trim_blocks(indices: Iterator[Block]) -> None:
            mask = np.empty(min(BLOCK, x.size), bits.dtype)
            for block in indices:
                refuse_nan(name, x[block])
                into = trimmed[block].view(bits.dtype)
                _trim_bits(bits[block], below[block], shaped(mask, into), into)

        over_blocks(trim_blocks, x.shape)
        return trimmed

    return map_tree(trim_leaf, x, threshold_tree(x, threshold))


def elect_signs(xs: Sequence[Any], weights: Any, by: str) -> Any:
    shares = _shares(weights, len(xs))

    def elect_leaf(name: str, *leaves: Any) -> Any:
        inputs = _Inputs(name, leaves, [None] * len(leaves))
        signs = np.empty(np.shape(leaves[0]), np.int8)

        def elect_blocks(indices: Iterator[Block]) -> None:
            buffers = _Buffers(inputs)
            for block in indices:
                buffers.load(block)
                total = buffers.elect(shares, by)
                positive = shaped(buffers.agreeing, total)
                np.less(total, 0, out=positive)
                np.negative(positive.view(np.int8), out=signs[block])
                np.greater(total, 0, out=positive)
                signs[block] += positive.view(np.int8)

        over_blocks(elect_blocks, signs.shape)
        return signs

    with np.errstate(all="ignore"):
        return map_tree(elect_leaf, *xs)


def merge_agreeing(
    xs: Sequence[Any], weights: Any, thresholds: Sequence[Any], elect: str, on_tie: int, divide: str
) -> Any:
    shares = _shares(weights, len(xs))
    ballot = shares if elect == "weighted" else None
    by = "frequency" if elect == "frequency" else "total"

    def merge_leaf(name: str, *leaves_and_thresholds: Any) -> Any:
        leaves = leaves_and_thresholds[: len(xs)]
        inputs = _Inputs(name, leaves, leaves_and_thresholds[len(xs) :])
        merged = np.empty_like(leaves[0])

        def merge_blocks(indices: Iterator[Block]) -> None:
            buffers = _Buffers(inputs)
            for block in indices:
                buffers.load(block)
                buffers.elect(ballot, by)
                buffers.keep_agreeing(on_tie)
                buffers.combine(shares, divide, merged[block])

        over_blocks(merge_blocks, merged.shape)
        return merged

    limits = [threshold_tree(x, threshold) for x, threshold in zip(xs, thresholds, strict=True)]
    with np.errstate(all="ignore"):
        return map_tree(merge_leaf, *xs, *limits)


class _Inputs:
    """N leaves of one shape, each with what its threshold leaves below it."""

    def __init__(self, name: str, leaves: Sequence[Any], thresholds: Sequence[Any]) -> None:
        for leaf in leaves:
            format_of(name, leaf)
            check_shape(name, leaf, leaves[0])
        self.name, self.leaves = name, leaves
        self.below = [
            None if threshold is None else _below(name, leaf, threshold)
            for leaf, threshold in zip(leaves, thresholds, strict=True)
        ]


class _Buffers:
    """One block of the inputs, trimmed, in float32; then what the merge makes of it, in place."""

    def __init__(self, inputs: _Inputs) -> None:
        count, size = len(inputs.leaves), min(BLOCK, inputs.leaves[0].size)
        self._inputs = inputs
        self._values = np.empty((count, size), np.float32)
        self._total, self._scratch = np.empty(size, np.float32), np.empty(size, np.float32)
        self._zeros = np.zeros(size, np.float32)  # np.maximum with a number takes four times as long
        self.agreeing = np.empty(size, bool)
        self._count, self._ones = (np.ones(size, np.uint8 if count < 256 else np.int32) for _ in range(2))

    def load(self, block: Block) -> None:
        """`block` of every input, in `values`: a view of what is neither trimmed nor cast."""
        self._block = block
        self.values: list[Floats] = []
        for leaf, below, buffer in zip(self._inputs.leaves, self._inputs.below, self._values, strict=True):
            x = leaf[block]
            values = shaped(buffer, x)
            if below is None:
                if x.dtype == _FLOAT32:
                    values = x
                else:
                    np.copyto(values, x)
            else:
                self._trim(x, below[block], values)
            self.values.append(values)
        self.total, self.scratch = shaped(self._total, x), shaped(self._scratch, x)

    def _trim(self, x: Any, below: Bits, values: Floats) -> None:
        bits = x.view(below.dtype)
        mask = shaped(self._scratch.view(below.dtype), x)
        if x.dtype == _FLOAT32:
            _trim_bits(bits, below, mask, values.view(np.int32))
        else:
            _trim_bits(bits, below, mask, mask)
            np.copyto(values, mask.view(x.dtype))

    def elect(self, shares: Sequence[np.float32] | None, by: str) -> Floats:
        """The sum whose sign is elected, in `total`: of what `shares` weigh, 0 where infinities cancel."""
        if by == "frequency":
            self._refuse_nan()
            self._count_signs()
            return self.total
        for i, values in enumerate(self.values):
            into = self.scratch if i else self.total
            if shares is not None:
                values = np.multiply(values, shares[i], out=into)
            if i == 0:
                np.add(values, 0, out=self.total)  # no zero is negative
            else:
                self.total += values
        if np.isnan(self.total.max(initial=0)):
            self._refuse_nan()
            self.total[np.isnan(self.total)] = 0
        return self.total

    def _count_signs(self) -> None:
        self.total[...] = 0
        for values in self.values:
            agreeing = shaped(self.agreeing, values)
            for compare, add in ((np.greater, np.add), (np.less, np.subtract)):
                compare(values, 0, out=agreeing)
                np.copyto(self.scratch, agreeing)
                add(self.total, self.scratch, out=self.total)

    def _refuse_nan(self) -> None:
        for leaf in self._inputs.leaves:
            refuse_nan(self._inputs.name, leaf[self._block])

    def keep_agreeing(self, on_tie: int) -> None:
        """In `values` those of the elected sign, made positive, and 0 for the rest; in `scratch` the sign."""
        sign = self.scratch.view(np.int32)
        agreeing = shaped(self.agreeing, self.total)
        if on_tie == 0:
            np.not_equal(self.total, 0, out=agreeing)
        if on_tie < 0:  # then the opposite sign is elected, and +0 counts for it
            np.subtract(0, self.total, out=self.total)
        np.bitwise_and(self.total.view(np.int32), _SIGN, out=sign)
        if on_tie < 0:
            np.bitwise_xor(sign, _SIGN, out=sign)
        for i, (values, buffer) in enumerate(zip(self.values, self._values, strict=True)):
            kept = shaped(buffer, values)
            np.bitwise_xor(values.view(np.int32), sign, out=kept.view(np.int32))
            np.maximum(kept, shaped(self._zeros, kept), out=kept)
            if on_tie == 0:
                kept.view(np.int32)[...] *= agreeing
            self.values[i] = kept

    def combine(self, shares: Sequence[np.float32] | None, divide: str, merged: Any) -> None:
        if divide == "count":
            self._count_agreeing()
        elif divide == "weight":
            self._weigh_agreeing(shares or [np.float32(1)] * len(self.values))
        result, *others = self.values
        for i, values in enumerate(self.values):
            if shares is not None:
                values *= shares[i]
        for values in others:
            if divide == "max":
                agreeing = shaped(self.agreeing, values)
                np.greater(np.abs(values), np.abs(result), out=agreeing)
                np.copyto(result, values, where=agreeing)
            else:
                result += values
        if divide in ("count", "weight"):
            result /= self.total
        np.bitwise_xor(result.view(np.int32), self.scratch.view(np.int32), out=result.view(np.int32))
        result += 0  # no zero is negative
        if np.isnan(result.max(initial=0)):
            raise ValueError(
                f"{self._inputs.name} has a merged weight of NaN: infinite weights or sums do that"
            )
        merged[...] = result

    def _count_agreeing(self) -> None:
        """In `total`, how many agree, at least 1."""
        agreeing, count = shaped(self.agreeing, self.total), shaped(self._count, self.total)
        np.greater(self.values[0], 0, out=agreeing)
        np.copyto(count, agreeing)
        for values in self.values[1:]:
            np.greater(values, 0, out=agreeing)
            count += agreeing.view(np.uint8)
        np.maximum(count, shaped(self._ones, count), out=count)
        np.copyto(self.total, count)

    def _weigh_agreeing(self, shares: Sequence[np.float32]) -> None:
        """In `total`, the sum of the weights that agree; where that is 0, it is made 1, and `values` 0."""
        agreeing, weight = shaped(self.agreeing, self.total), np.empty_like(self.total)
        self.total[...] = 0
        for values, share in zip(self.values, shares, strict=True):
            np.greater(values, 0, out=agreeing)
            np.multiply(agreeing, share, out=weight)
            self.total += weight
        np.equal(self.total, 0, out=agreeing)
        self.total += agreeing
        if min(shares) <= 0:
            np.logical_not(agreeing, out=agreeing)
            for values in self.values:
                values.view(np.int32)[...] *= agreeing


def _trim_bits(bits: Bits, below: Bits, mask: Bits, trimmed: Bits) -> None:
    """`bits` where their magnitude exceeds `below`, else 0, without branches; `mask` is overwritten."""
    np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=mask)
    np.subtract(below, mask, out=mask)
    np.right_shift(mask, 8 * mask.itemsize - 1, out=mask)
    np.bitwise_and(bits, mask, out=trimmed)


def _below(name: str, x: Any, threshold: Any) -> Bits:
    """The largest magnitude (bits) below `threshold`, or that of zero: a zero of either sign becomes +0."""
    form = format_of(name, x)
    limit = np.asarray(threshold_for(name, 0 if threshold is None else threshold, x)).view(form.integer)
    magnitude_of(f"the threshold of {name}", limit, form)
    return np.broadcast_to(np.maximum(limit, 1) - 1, np.shape(x))


def _shares(weights: Any, count: int) -> list[np.float32] | None:
    """The weights in float32; None where all are 1."""
    shares = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    return None if (shares == 1).all() else list(shares)
