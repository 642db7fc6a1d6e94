"""One safetensors file: its header checked before a number is believed, its tensors written as they come."""

import errno
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from io import RawIOBase
from itertools import groupby
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.tensor_file import (
    DTYPES,
    MOST_TENSORS,
    FileState,
    TensorEntry,
    TensorFile,
    all_finite,
    is_shape,
    is_tensor_name,
    parsed_json,
    shown,
)
from pamctl.refusal import Refusal

WRITTEN = ("F32", "F16", "BF16")
"""The number formats that pamctl writes."""

LARGEST_HEADER = 16 << 20
"""In bytes: some 100 000 tensors."""

MOST_LOST = 2.0**-8
"""The share of a tensor's norm that rounding may take: what BF16 loses of any number at most."""

_DAMAGED = "the file is damaged or not a safetensors file: fetch or write it again"


def open_safetensors(file: Path) -> TensorFile:
    """The tensors of a safetensors file by name, each inside the file and none overlapping another.

    Raises:
        Refusal: the header is not one, or an entry is malformed, out of range, overlapping or named twice.
    """
    with file.open("rb") as stream:
        state = FileState.of(os.fstat(stream.fileno()))
        size, start = state.size, stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise Refusal(f"{file}: a header of {length} bytes in a file of {size}", _DAMAGED)
        if length > LARGEST_HEADER:
            raise Refusal(
                f"{file}: a header of {length} bytes, more than {LARGEST_HEADER}",
                "it is not an adapter's: fetch it again, or split it",
            )
        raw = stream.read(length)
    # A tensor has three brackets and four colons; as a parsed table each can take 300 bytes.
    if sum(raw.count(mark) for mark in (b"{", b"[", b":")) > 8 * MOST_TENSORS:
        raise Refusal(f"{file} holds more than {MOST_TENSORS} tensors", "it is not an adapter's: split it")
    try:
        header = parsed_json(raw)
    except (ValueError, RecursionError) as fault:
        raise Refusal(f"{file}: the header is not JSON: {fault}", _DAMAGED) from fault
    if not isinstance(header, dict):
        raise Refusal(f"{file}: the header is not a table of tensors", _DAMAGED)
    metadata = _metadata(file, header.pop("__metadata__", None))
    entries = {name: _entry(file, name, fields, 8 + length) for name, fields in header.items()}
    _refuse_gaps_and_overlaps(file, entries, 8 + length, size)
    return TensorFile(file, entries, state, metadata)


def write_safetensors(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, NDArray[Any]]],
    dtypes: Mapping[str, str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors one after the other, as they come, each rounded to its dtype.

    Args:
        file: the path to create.
        shapes: every tensor's name and shape, in the order of the file.
        tensors: the same names in the same order, with their values, whole or in several blocks of rows.
        dtypes: of each name, one of `DTYPES`.
        metadata: what stands beside `format: pt`.

    Raises:
        Refusal: a value is NaN or Inf, or becomes so in its dtype.
    """
    header = _header(shapes, dtypes, metadata or {})
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    with file.open("wb", buffering=0) as stream:
        _reserve(
            stream, len(header) + sum(DTYPES[dtypes[name]].itemsize * size for name, size in sizes.items())
        )
        _write_whole(stream, memoryview(header))
        blocks = groupby(tensors, key=lambda tensor: tensor[0])
        for (name, size), (given, parts) in zip(sizes.items(), blocks, strict=True):
            for _, values in parts:
                rounded = np.ascontiguousarray(rounded_to(values, dtypes[name], name))
                _write_whole(stream, rounded.reshape(-1).view(np.uint8).data)
                size -= rounded.size
            if given != name or size:
                raise ValueError(f"expected {name} {shapes[name]}, got {given} with {-size} numbers more")


def rounded_to(values: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """The values in a dtype of `DTYPES`, refused where one is not finite there, or all are too small for it.

    Args:
        name: for the message.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(DTYPES[dtype], copy=False)
    if all_finite(rounded):
        _refuse_underflow(values, rounded, dtype, name)
        return rounded
    if all_finite(values):
        largest = float(ml_dtypes.finfo(DTYPES[dtype]).max)
        raise Refusal(f"{name} goes beyond {largest:g}, the largest {dtype}", "write it in a wider --dtype")
    raise Refusal(f"{name} came out as NaN or Inf, so nothing is written", "check the inputs' scale")


def _refuse_underflow(values: NDArray[Any], rounded: NDArray[Any], dtype: str, name: str) -> None:
    """Refuse F16 where it keeps less of a tensor than BF16 would: below 6.1e-05 it has ever fewer digits."""
    if dtype != "F16" or values.dtype == rounded.dtype:
        return
    lost = np.linalg.norm((values - rounded.astype(values.dtype)).ravel())
    whole = np.linalg.norm(values.ravel())
    if lost > MOST_LOST * whole:
        raise Refusal(
            f"{name} loses {100 * lost / whole:.3g} % in F16, for which its numbers are too small",
            "write it with --dtype bf16 or f32",
        )


def _header(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], metadata: Mapping[str, str]
) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + DTYPES[dtypes[name]].itemsize * math.prod(shape)
        header[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _metadata(file: Path, found: Any) -> dict[str, str]:
    metadata = {} if found is None else found
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Refusal(f"{file}: __metadata__ is not a table of texts", _DAMAGED)
    return metadata


def _entry(file: Path, name: str, fields: Any, data_start: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError, ValueError) as fault:
        raise Refusal(f"{file}: {shown(name)} lacks dtype, shape or data_offsets", _DAMAGED) from fault
    plain = isinstance(dtype, str) and dtype.isprintable() and len(dtype) < 20 and isinstance(shape, list)
    if not (plain and is_tensor_name(name) and is_shape(shape) and _is_count(begin) and _is_count(end)):
        raise Refusal(f"{file}: the header's entry {shown(name)} is malformed", _DAMAGED)
    if begin > end or (dtype in DTYPES and end - begin != DTYPES[dtype].itemsize * math.prod(shape)):
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
    return type(number) is int and 0 <= number < 2**63


def _reserve(stream: RawIOBase, size: int) -> None:
    """Ask for all of the disk that a file will take, so that a lack of it shows before the work."""
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as fault:
        if fault.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _write_whole(stream: RawIOBase, values: memoryview) -> None:
    """An unbuffered write may take less than it is given."""
    while values:
        values = values[stream.write(values) or 0 :]
