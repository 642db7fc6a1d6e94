"""Sign conflicts and realignment of host arrays, a block at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import (
    BLOCK,
    Bits,
    Block,
    magnitude_of,
    output_tree,
    over_blocks,
    refuse_nan,
    shaped,
    threshold_tree,
)
from pamctl_kernels.leaf import FloatFormat, check_pair, format_of, threshold_for
from pamctl_kernels.tree import map_tree


def sign_conflicts(w: Any, g: Any, threshold: Any) -> Any:
    def leaf_conflicts(name: str, w: Any, g: Any, threshold: Any) -> Bits:
        pair, mask = _Pair(name, w, g, threshold), np.empty(np.shape(w), bool)

        def mark(indices: Iterator[Block]) -> None:
            for block, found, _ in pair.conflicts(indices):
                mask[block] = found

        over_blocks(mark, mask.shape)
        return mask

    return map_tree(leaf_conflicts, w, g, threshold_tree(w, threshold))


def realign(w: Any, g: Any, threshold: Any, reinit: str, per_layer: bool, out: Any) -> tuple[Any, Any]:
    counts: dict[str, Any] = {}

    def realign_leaf(name: str, aligned: Any, w: Any, g: Any, threshold: Any) -> Any:
        pair = _Pair(name, w, g, threshold)
        integer = pair.form.integer

        def realign_blocks(indices: Iterator[Block]) -> Bits:
            count = np.zeros(np.shape(w)[:1] if per_layer else (), np.int64)
            for block, found, change in pair.conflicts(indices):
                # No branches: np.where and masked copies take ten times as long on a random mask.
                old, new = w[block].view(integer), aligned[block].view(integer)
                if reinit == "global":
                    np.bitwise_xor(old, g[block].view(integer), out=change)
                else:
                    np.copyto(change, old)
                change *= found
                np.bitwise_xor(old, change, out=new)
                if per_layer:
                    count[block[:1]] += np.count_nonzero(found, axis=tuple(range(1, found.ndim)))
                else:
                    count += np.count_nonzero(found)
            return count

        counts[name] = sum(over_blocks(realign_blocks, aligned.shape))
        return aligned

    aligned = map_tree(realign_leaf, output_tree(w, out), w, g, threshold_tree(w, threshold))
    if per_layer:
        return aligned, map_tree(lambda name, _: counts[name], w)
    return aligned, np.int64(sum(counts.values()))


class _Pair:
    """One leaf of w and of g with its threshold, checked."""

    def __init__(self, name: str, w: Any, g: Any, threshold: Any) -> None:
        check_pair(name, w, g)
        self.form: FloatFormat = format_of(name, w)
        self._name, self._w, self._g = name, w, g
        limit = np.asarray(threshold_for(name, threshold, g)).view(self.form.integer)
        magnitude_of(f"the threshold of {name}", limit, self.form)
        self._limit = np.broadcast_to(np.maximum(limit, 1), g.shape)  # 1: the smallest g that is not zero

    def conflicts(self, indices: Iterator[Block]) -> Iterator[tuple[Block, Bits, Bits]]:
        """Per block: where |g| >= threshold, g != 0 and the signs differ; and integers to work with."""
        size = min(BLOCK, self._w.size)
        sides, magnitudes = (np.empty(size, self.form.integer) for _ in range(2))
        founds = np.empty(size, bool)
        for block in indices:
            w, g = self._w[block].view(self.form.integer), self._g[block].view(self.form.integer)
            side, magnitude, found = (shaped(buffer, w) for buffer in (sides, magnitudes, founds))
            refuse_nan(f"{self._name} of w", self._w[block])
            np.bitwise_and(g, self.form.magnitude_mask, out=magnitude)
            if magnitude.max(initial=0) > self.form.infinity:
                raise ValueError(f"{self._name} of g holds NaN")
            # w with the sign of g taken off: a positive integer where, and only where, w has that sign.
            np.bitwise_and(g, ~self.form.magnitude_mask, out=side)
            np.bitwise_xor(side, w, out=side)
            np.subtract(self._limit[block], magnitude, out=magnitude)
            # Neither is positive: the signs differ, and the limit does not exceed |g|.
            np.maximum(side, magnitude, out=side)
            np.less_equal(side, 0, out=found)
            yield block, found, side
