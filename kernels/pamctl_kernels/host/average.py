"""The weighted average of host arrays, accumulated in float32 a block at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import BLOCK, Bits, Block, output_tree, over_blocks, shaped
from pamctl_kernels.leaf import check_shape, format_of
from pamctl_kernels.tree import map_tree

_FLOAT32 = np.dtype(np.float32)


def weighted_average(xs: Sequence[Any], weights: Any, out: Any) -> Any:
    shares = np.asarray(weights, np.float32)

    def average_leaf(name: str, average: Any, *leaves: Any) -> Any:
        for leaf in leaves:
            format_of(name, leaf)
            check_shape(name, leaf, leaves[0])

        def average_blocks(indices: Iterator[Block]) -> None:
            buffers = _Buffers(min(BLOCK, average.size))
            for block in indices:
                total = buffers.average([leaf[block] for leaf in leaves], shares, average[block])
                if np.isnan(total.max(initial=0)):
                    reason = "it holds NaN or opposite infinities"
                    raise ValueError(f"{name} has a weighted average of NaN: {reason}")
                if not np.may_share_memory(total, average):
                    average[block] = total

        over_blocks(average_blocks, average.shape)
        return average

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return map_tree(average_leaf, output_tree(xs[0], out), *xs)


class _Buffers:
    """What one block needs besides its inputs and its result."""

    def __init__(self, size: int) -> None:
        self._first, self._other, self._total = (np.empty(size, np.float32) for _ in range(3))
        self._same, self._pair = np.empty(size, bool), np.empty(size, bool)

    def average(self, leaves: Sequence[Any], shares: Bits, result: Any) -> Bits:
        """The float32 average, in `result` itself if that is float32 and none of `leaves`."""
        in_place = result.dtype == _FLOAT32 and not any(np.may_share_memory(result, leaf) for leaf in leaves)
        total = result if in_place else shaped(self._total, result)
        product = shaped(self._other, result)
        same = self._where_all_agree(leaves) if sum(shares, np.float32(0)) == 1 else None
        first, *others = leaves
        np.multiply(_float32(first, self._first), shares[0], out=total)
        for other, share in zip(others, shares[1:], strict=True):
            np.multiply(_float32(other, self._other), share, out=product)
            total += product
        if same is not None:
            np.copyto(total, first, where=same)
        return total

    def _where_all_agree(self, leaves: Sequence[Any]) -> Bits | None:
        """Where all leaves have the same float32 bits; None if that is nowhere."""
        first = _float32(leaves[0], self._first).view(np.int32)
        same, pair = shaped(self._same, first), shaped(self._pair, first)
        if len(leaves) == 1:
            same[...] = True
        for i, leaf in enumerate(leaves[1:]):
            np.equal(first, _float32(leaf, self._other).view(np.int32), out=pair if i else same)
            if i:
                same &= pair
        return same if same.any() else None


def _float32(x: Any, buffer: Bits) -> Bits:
    """`x` itself where it is float32, else cast into `buffer`."""
    if x.dtype == _FLOAT32:
        return x
    cast = shaped(buffer, x)
    np.copyto(cast, x)
    return cast
