import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.adapters.safetensors_file import read_header, read_tensor, write_safetensors
from pamctl.refusal import Refusal

WHOLE = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def file_with(path: Path, header: Any, data: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    return {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": first},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": second},
    }


HOSTILE = {
    "length 0": (WHOLE, bytes(8), 0),
    "length beyond the file": (WHOLE, bytes(8), 10_000),
    "absurd length": (WHOLE, bytes(8), 2**63),
    "not JSON": (b"{nonsense", bytes(8), None),
    "not UTF-8": (b'{"\xff": 1}', bytes(8), None),
    "nested without end": (b"[" * 100_000, bytes(8), None),
    "not a table": ([1, 2], bytes(8), None),
    "an entry that is not a table": ({"t": 3}, bytes(8), None),
    "an entry without offsets": ({"t": {"dtype": "F32", "shape": [2]}}, bytes(8), None),
    "a name twice": (b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":1}', bytes(8), None),
    "a name that writes to the terminal": ({"\x1b[31m": WHOLE["t"]}, bytes(8), None),
    "truncated data": (WHOLE, bytes(7), None),
    "data after the end": (WHOLE, bytes(9), None),
    "a negative offset": ({"t": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, bytes(8), None),
    "a fractional shape": ({"t": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, bytes(8), None),
    "a huge shape": (
        {"t": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
        bytes(8),
        None,
    ),
    "a negative shape": ({"t": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}, bytes(8), None),
    "offsets the wrong way": ({"t": {"dtype": "F32", "shape": [0], "data_offsets": [8, 0]}}, bytes(8), None),
    "overlap": (two([0, 4], [0, 4]), bytes(4), None),
    "a gap": (two([0, 4], [8, 12]), bytes(12), None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_with_the_file_named(case: str, tmp_path: Path) -> None:
    header, data, length = HOSTILE[case]
    file = file_with(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(Refusal) as refusal:
        read_header(file)
    assert str(file) in refusal.value.what
    assert refusal.value.what.isprintable()


@pytest.mark.parametrize("size", range(9))
def test_a_file_too_short_for_a_header_is_refused(size: int, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(bytes(size))
    with pytest.raises(Refusal, match="header"):
        read_header(file)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_numbers_are_read_as_the_safetensors_library_reads_them(dtype: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    save_file({"x": np.ones(7, np.float32), "y": values}, tmp_path / "x.safetensors")
    entries = read_header(tmp_path / "x.safetensors")
    read = read_tensor(tmp_path / "x.safetensors", "y", entries["y"])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_by_name_when_read(bad: float, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"weights": np.array([1, bad], np.float32)}, file)
    entries = read_header(file)
    with pytest.raises(Refusal, match="weights holds NaN or Inf"):
        read_tensor(file, "weights", entries["weights"])


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path: Path) -> None:
    file = file_with(tmp_path / "x.safetensors", WHOLE)
    entries = read_header(file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(Refusal, match="ends after 4 of 8 bytes"):
        read_tensor(file, "t", entries["t"])


def test_an_unsupported_dtype_is_refused(tmp_path: Path) -> None:
    save_file({"t": np.arange(3)}, tmp_path / "x.safetensors")
    entries = read_header(tmp_path / "x.safetensors")
    with pytest.raises(Refusal, match="t is I64"):
        read_tensor(tmp_path / "x.safetensors", "t", entries["t"])


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((3, 1), np.float32).T}
    write_safetensors(tmp_path / "x.safetensors", {n: t.shape for n, t in tensors.items()}, tensors.items())
    loaded = load_file(tmp_path / "x.safetensors")
    assert list(loaded) == ["a", "b"]
    for name, values in tensors.items():
        np.testing.assert_array_equal(loaded[name], values)
    assert list(read_header(tmp_path / "x.safetensors")) == ["a", "b"]


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="t came out as NaN"):
        write_safetensors(tmp_path / "x", {"t": (1,)}, [("t", np.array([np.nan], np.float32))])
