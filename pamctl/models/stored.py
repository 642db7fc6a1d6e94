"""What a file that holds a base is to those who read it: tensors that are filled in rows by rows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from pamctl.models.leaves import Leaf
from pamctl.refusal import Refusal

KINDS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""The number formats of a base, by the names that safetensors gives them."""

_BLOCK = 1 << 20
"""Bytes that are read, checked and hashed while they are in a processor's cache."""

_EXPONENTS: dict[str, tuple[Any, int]] = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


class StoredTensor(Protocol):
    """One tensor in the layout of Hugging Face, its numbers unread; good until the next of its run.

    Attributes:
        kind: one of `KINDS`.
        where: the file and the tensor as the file spells it, for messages.
    """

    @property
    def kind(self) -> str: ...
    @property
    def where(self) -> str: ...
    def fill(self, start: int, out: np.ndarray) -> None:
        """Read the rows from `start` on into `out`, (rows, ...) of its kind; called in ascending order."""
        ...


@dataclass(frozen=True)
class Run:
    """Tensors that lie together in a file and are read one after the other, each byte once.

    Attributes:
        tensors: parameter, layer and kind of each, in that order.
    """

    tensors: tuple[tuple[Leaf, int, str], ...]
    open: Callable[[], Iterator[StoredTensor]]


@dataclass(frozen=True)
class StoredModel:
    """All tensors of a base on disk.

    Attributes:
        files: that hold them.
        groups: runs that may be read in any order and at once; all those of a parameter are in one group.
    """

    files: tuple[Path, ...]
    groups: tuple[tuple[Run, ...], ...]


def row_blocks(leaf: Leaf, kind: str) -> Iterator[tuple[int, int]]:
    """Yield first row and end of each block of one layer's tensor."""
    rows, *rest = leaf.one
    step = max(1, _BLOCK // (math.prod(rest) * KINDS[kind].itemsize))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


class BlockReader:
    """Reads a tensor by blocks into memory used again and again, and refuses what is not finite.

    Raises:
        Refusal: NaN or Inf, or as `StoredTensor.fill`.
    """

    def __init__(self) -> None:
        self._block, self._scratch = (np.empty(0, np.uint8) for _ in range(2))

    def read(
        self, tensor: StoredTensor, leaf: Leaf, start: int, stop: int, room: np.ndarray | None = None
    ) -> np.ndarray:
        """Return rows of one layer's tensor as stored: in `room`, or in memory good until the next call."""
        values = room
        if values is None:
            shape, dtype = (stop - start, *leaf.one[1:]), KINDS[tensor.kind]
            size = math.prod(shape) * dtype.itemsize
            if size > self._block.size:
                self._block = np.empty(size, np.uint8)
            values = self._block[:size].view(dtype).reshape(shape)
        tensor.fill(start, values)
        if not self.all_finite(values, tensor.kind):
            raise Refusal(
                f"{tensor.where} holds NaN or Inf", "take a checkpoint from before training diverged"
            )
        return values

    def all_finite(self, values: np.ndarray, kind: str) -> bool:
        """Whether no number of a contiguous array is NaN or Inf, which have all bits of the exponent set."""
        unsigned, exponent = _EXPONENTS[kind]
        bits = values.reshape(-1).view(unsigned)
        if values.nbytes > self._scratch.size:
            self._scratch = np.empty(values.nbytes, np.uint8)
        found = self._scratch[: values.nbytes].view(unsigned)
        return bool(np.bitwise_and(bits, unsigned(exponent), out=found).max(initial=0) < exponent)
