"""One .npz file: the arrays' kinds and shapes without their numbers, and their numbers as a stream."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pamctl.models.stored import KINDS
from pamctl.refusal import Refusal

_DAMAGED = "the file is damaged or not one of big_vision's: fetch it again"
_KIND_OF = {"<f4": "F32", "<f2": "F16", "|V2": "BF16"}  # numpy knows no bfloat16: two bytes of its own


@dataclass(frozen=True)
class NpzArray:
    """One array, its numbers unread.

    Attributes:
        member: its name in the zip.
        kind: one of `KINDS`.
    """

    file: Path
    member: str
    kind: str
    shape: tuple[int, ...]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.file}: {self.member.removesuffix('.npy')}"

    @contextmanager
    def opened(self) -> Iterator["NpzStream"]:
        """Open the array at its first number.

        Raises:
            Refusal: the zip is damaged, here or where the numbers are read.
        """
        with ExitStack() as open_files:
            with _faults_named(self.where):
                whole = open_files.enter_context(zipfile.ZipFile(self.file))
                stream = open_files.enter_context(whole.open(self.member))
                _header(stream)
            yield NpzStream(self, stream)
            with _faults_named(self.where):
                stream.read(1)  # at its end the checksum is compared


@dataclass(frozen=True)
class NpzStream:
    """An array that is read from its first number on, in row-major order."""

    array: NpzArray
    stream: IO[bytes]

    def read(self, out: np.ndarray) -> None:
        """Fill a contiguous array of the kind with the next numbers."""
        buffer = out.reshape(-1).view(np.uint8).data
        with _faults_named(self.array.where):
            while buffer:
                count = self.stream.readinto(buffer[: 1 << 24])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError("it ends early")
                buffer = buffer[count:]


def npz_arrays(file: Path) -> Mapping[str, NpzArray]:
    """Return the arrays of an .npz file by name, compressed or not.

    Raises:
        Refusal: no zip file, or an array that is damaged, pickled, or not of F32, F16 or BF16 in row order.
    """
    with _faults_named(str(file)), zipfile.ZipFile(file) as whole:
        return {
            info.filename.removesuffix(".npy"): _array(file, whole, info)
            for info in whole.infolist()
            if not info.is_dir()
        }


def _array(file: Path, whole: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpzArray:
    with whole.open(info) as stream:
        shape, columns_first, dtype = _header(stream)
        start = stream.tell()
    where = f"{file}: {info.filename.removesuffix('.npy')}"
    if dtype.hasobject:
        raise Refusal(
            f"{where} is pickled, and unpickling can run any code", "save it again as an array of numbers"
        )
    if dtype.str not in _KIND_OF or columns_first:
        order = " in column order" if columns_first else ""
        raise Refusal(f"{where} is {dtype.str}{order}", "save it again as float32, float16 or bfloat16")
    kind = _KIND_OF[dtype.str]
    if info.file_size - start != math.prod(shape) * KINDS[kind].itemsize:
        raise Refusal(f"{where} of {kind} {shape} takes {info.file_size - start} bytes", _DAMAGED)
    return NpzArray(file, info.filename, kind, shape)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


@contextmanager
def _faults_named(where: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError) as fault:
        raise Refusal(f"{where} cannot be read: {fault}", _DAMAGED) from fault
