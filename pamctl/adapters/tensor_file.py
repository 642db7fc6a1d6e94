"""A file of named tensors, each read alone by its place in the file and never trusted to be finite."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from pamctl.refusal import Refusal

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
"""The number formats that can be read, by the names that safetensors gives them."""

_OF_SINGLE_NUMBERS = DTYPES | {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}

DAMAGED = "the file is damaged: fetch or write it again"

MOST_TENSORS = 100_000
MOST_AXES = 8
LONGEST_NAME = 500
LARGEST_SETTINGS = 16 << 20  # bytes of a file beside the tensors
"""What no adapter reaches, and what keeps a hostile file from taking gigabytes or minutes."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: its numbers in row-major order from a byte of the file on.

    Args:
        dtype: as safetensors names it; one that is not in `DTYPES` cannot be read.
        offset: the first byte, from the start of the file.
        size: in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class FileState(NamedTuple):
    """Which file stands under a path, and of when: places found in one are of no other."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class TensorFile(Mapping[str, TensorEntry]):
    """The tensors of one file by name, their numbers unread, and the metadata that stands beside them.

    Args:
        state: of the file when the entries were found in it.
    """

    path: Path
    entries: Mapping[str, TensorEntry]
    state: FileState
    metadata: Mapping[str, str] = field(default_factory=dict)
    _known_finite: set[str] = field(default_factory=set, init=False)

    def __getitem__(self, name: str) -> TensorEntry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """The dtype of one tensor; a refusal where it is not one of `DTYPES`."""
        said = self.entries[name].dtype
        if said not in DTYPES:
            raise Refusal(f"{self.path}: {name} is {said}", f"convert it to one of {', '.join(DTYPES)}")
        return DTYPES[said]

    def stored(self, name: str) -> NDArray[Any]:
        """One tensor in the dtype it has in the file.

        Raises:
            Refusal: a dtype that is not one of `DTYPES`, NaN or Inf, or a file that is not the one opened.
        """
        return self._finite(name, self._read(name, slice(None)))

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """One tensor, or a range of its rows, as float32.

        Raises:
            Refusal: as `stored`, and numbers too large for float32.
        """
        with np.errstate(over="ignore"):
            values = (stored := self._read(name, rows)).astype(np.float32, copy=False)
        if name in self._known_finite:
            return values
        if all_finite(values):
            if values.shape == self.entries[name].shape:
                self._known_finite.add(name)
            return values
        self._finite(name, stored)
        largest = float(np.finfo(np.float32).max)
        raise Refusal(
            f"{self.path}: {name} goes beyond {largest:g}, the largest F32", "check where it was trained"
        )

    def _read(self, name: str, rows: slice) -> NDArray[Any]:
        """The numbers of some rows as they lie in the file; of a tensor without axes all."""
        entry, dtype = self.entries[name], self.dtype_of(name)
        start, stop, _ = rows.indices(entry.shape[0]) if entry.shape else (0, 1, 1)
        shape = (stop - start, *entry.shape[1:]) if entry.shape else ()
        stride = math.prod(entry.shape[1:]) * dtype.itemsize
        values = np.empty(shape, dtype)
        whole = values.reshape(-1).view(np.uint8).data
        with self._unchanged() as stream:
            found = _read_into(whole, stream.fileno(), entry.offset + start * stride)
        if found != whole.nbytes:
            ends = start * stride + found
            raise Refusal(f"{self.path}: {name} ends after {ends} of {entry.size} bytes", DAMAGED)
        return values

    def numbers(self, names: Iterable[str]) -> dict[str, float]:
        """Tensors of one number each, as alphas are, whose dtype may be an integer's too.

        Raises:
            Refusal: several numbers or none; else as `stored`.
        """
        with self._unchanged() as stream:
            return {name: self._number(stream, name) for name in names}

    @contextmanager
    def _unchanged(self) -> Iterator[BinaryIO]:
        """The file, held open, if it is still the one in which the entries were found."""
        with self.path.open("rb") as stream:
            if FileState.of(os.fstat(stream.fileno())) != self.state:
                raise Refusal(f"{self.path} has changed since it was opened", "run again when it is whole")
            yield stream

    def _number(self, stream: BinaryIO, name: str) -> float:
        entry = self.entries[name]
        dtype = _OF_SINGLE_NUMBERS.get(entry.dtype)
        if dtype is None or math.prod(entry.shape) != 1 or entry.size != dtype.itemsize:
            raise Refusal(
                f"{self.path}: {name} is {entry.dtype} {list(entry.shape)}, not one number",
                "save the adapter again with the program that made it",
            )
        stream.seek(entry.offset)
        raw = stream.read(entry.size)
        if len(raw) != entry.size:
            raise Refusal(f"{self.path}: {name} ends after {len(raw)} of {entry.size} bytes", DAMAGED)
        return float(self._finite(name, np.frombuffer(raw, dtype).astype(np.float64))[0])

    def _finite(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if not all_finite(values):
            raise Refusal(
                f"{self.path}: {name} holds NaN or Inf", "take a checkpoint from before training diverged"
            )
        return values


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no number is NaN or Inf; of float32 without a second array, since a sum of squares tells."""
    if values.dtype == np.float32 and values.flags.c_contiguous:
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if math.isfinite(float(np.dot(flat, flat))):
                return True
    return bool(np.isfinite(values).all())


def is_tensor_name(name: Any) -> bool:
    """Whether a name may stand in a message and in a file."""
    return isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME


def is_shape(lengths: Iterable[Any]) -> bool:
    """Whether these are an array's lengths; numpy counts an empty axis as 1 in what is too large."""
    lengths = list(lengths)
    counts = all(type(length) is int and 0 <= length < 2**59 for length in lengths)
    return len(lengths) <= MOST_AXES and counts and math.prod(max(length, 1) for length in lengths) < 2**59


def parsed_json(text: str | bytes) -> Any:
    """What a JSON text holds, bytes in UTF-8 without a byte order mark as the formats' own readers want it.

    Raises:
        ValueError, RecursionError: it is none, or a name stands in one of its tables twice.
    """
    return json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_unique_names)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The table that an object of JSON is; ValueError where a name stands in it twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def shown(text: Any) -> str:
    """What a file calls something, short and printable whatever it is."""
    quoted = ascii(text) if isinstance(text, str | int | float | None) else type(text).__name__
    return quoted if len(quoted) <= 100 else f"{quoted[:100]}…"


def _read_into(buffer: memoryview, handle: int, offset: int) -> int:
    """Fill a buffer from a byte of a file on; gives how many bytes there were."""
    filled = 0
    while filled < len(buffer):
        count = os.preadv(handle, [buffer[filled:]], offset + filled)
        if count == 0:
            break
        filled += count
    return filled
