"""One safetensors file: its header checked before any number is believed, its tensors handled one by one."""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from pamctl.refusal import Refusal

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_DAMAGED = "the file is damaged or not a safetensors file: fetch or write it again"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: dtype as the format names it, shape, first byte from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name, each inside the file and none overlapping another.

    Raises:
        Refusal: the header is not one, or an entry is malformed, out of range, overlapping or named twice.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise Refusal(f"{file}: a header of {length} bytes in a file of {size}", _DAMAGED)
        raw = stream.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_unique_names)
    except (ValueError, RecursionError) as fault:
        raise Refusal(f"{file}: the header is not JSON: {fault}", _DAMAGED) from fault
    if not isinstance(header, dict):
        raise Refusal(f"{file}: the header is not a table of tensors", _DAMAGED)
    header.pop("__metadata__", None)
    entries = {name: _entry(file, name, fields, 8 + length) for name, fields in header.items()}
    _refuse_gaps_and_overlaps(file, entries, 8 + length, size)
    return entries


def read_tensor(file: Path, name: str, entry: TensorEntry) -> NDArray[np.float32]:
    """One tensor as float32, refused when it holds NaN or Inf or the file has become shorter."""
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise Refusal(f"{file}: {name} is {entry.dtype}", f"convert it to one of {', '.join(DTYPES)}")
    values = np.fromfile(file, dtype=dtype, count=entry.size // dtype.itemsize, offset=entry.offset)
    if values.nbytes != entry.size:
        raise Refusal(f"{file}: {name} ends after {values.nbytes} of {entry.size} bytes", _DAMAGED)
    array = values.astype(np.float32, copy=False).reshape(entry.shape)
    if not np.isfinite(array).all():
        raise Refusal(f"{file}: {name} holds NaN or Inf", "take a checkpoint from before training diverged")
    return array


def write_safetensors(
    file: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, NDArray[np.float32]]]
) -> None:
    """Write float32 tensors one after the other, as they come.

    Args:
        file: the path to create.
        shapes: every tensor's name and shape, in the order of the file.
        tensors: the same names in the same order, with their values.
    """
    with file.open("wb") as stream:
        stream.write(_header(shapes))
        for (name, shape), (given, values) in zip(shapes.items(), tensors, strict=True):
            if given != name or values.shape != shape:
                raise ValueError(f"expected {name} {shape}, got {given} {values.shape}")
            if not np.isfinite(values).all():
                raise Refusal(
                    f"{name} came out as NaN or Inf, so nothing is written", "check the inputs' scale"
                )
            stream.write(np.ascontiguousarray(values, dtype="<f4").data)


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _entry(file: Path, name: str, fields: Any, data_start: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError) as fault:
        raise Refusal(f"{file}: {name!a} lacks dtype, shape or data_offsets", _DAMAGED) from fault
    if not (name.isprintable() and isinstance(dtype, str) and all(_is_count(number) for number in numbers)):
        raise Refusal(f"{file}: the header's entry {name!a} is malformed", _DAMAGED)
    if begin > end or (dtype in DTYPES and end - begin != DTYPES[dtype].itemsize * _product(shape)):
        raise Refusal(f"{file}: {name} of {dtype} {shape} is said to lie in bytes {begin} to {end}", _DAMAGED)
    return TensorEntry(dtype, tuple(shape), data_start + begin, end - begin)


def _refuse_gaps_and_overlaps(
    file: Path, entries: Mapping[str, TensorEntry], data_start: int, size: int
) -> None:
    expected = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset != expected:
            raise Refusal(f"{file}: {name} starts at byte {entry.offset} where {expected} is due", _DAMAGED)
        expected += entry.size
    if expected != size:
        raise Refusal(f"{file}: its tensors end at byte {expected}, the file at byte {size}", _DAMAGED)


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _product(shape: Iterable[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
