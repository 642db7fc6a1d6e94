"""Files of torch.save written opcode by opcode, whole ones and hostile ones, with no torch."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}
START, STOP = b"\x80\x02", b"."
NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: Any) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def table(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(key: str, length: int, kind: str = "torch\nFloatStorage") -> bytes:
    return (
        b"("
        + text("storage")
        + b"c"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + number(length)
        + b"tQ"
    )


def tensor(
    shape: tuple[int, ...],
    *,
    key: str = "0",
    length: int | None = None,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    kind: str = "torch\nFloatStorage",
    more: bytes = b"",
) -> bytes:
    """A call of `_rebuild_tensor_v2`, by default on a storage of its own size."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    held = storage(key, int(np.prod(shape)) if length is None else length, kind)
    arguments = held + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + NO_HOOKS + more
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def torch_file(
    path: Path, pickled: bytes, storages: Mapping[str, bytes] | None = None, **members: bytes
) -> Path:
    """A zip as torch writes it, around these bytes of a pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {
            "data.pkl": pickled,
            "byteorder": b"little",
            "version": b"3\n",
            **members,
        }.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
        for key, content in (storages or {}).items():
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), content)
    return path


def write_torch(path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], **values: bytes) -> Path:
    """What `torch.save` writes of these tensors, and of values given as pickled bytes."""
    items = {
        name: tensor(array.shape, key=str(i), kind=f"torch\n{STORAGES[array.dtype.name]}")
        for i, (name, array) in enumerate(tensors.items())
    }
    storages = {str(i): np.ascontiguousarray(array).tobytes() for i, array in enumerate(tensors.values())}
    return torch_file(path, START + table({**items, **values}) + STOP, storages)
