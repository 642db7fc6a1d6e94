import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.adapters import safetensors_file
from pamctl.adapters.safetensors_file import open_safetensors, rounded_to, write_safetensors
from pamctl.adapters.tensor_file import LONGEST_NAME, MOST_AXES, MOST_TENSORS
from pamctl.refusal import Refusal
from tests.measured_opening import measured_opening

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


def entry(**changed: Any) -> dict[str, Any]:
    return {"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changed}}


HOSTILE = {
    "length 0": (WHOLE, bytes(8), 0),
    "length beyond the file": (WHOLE, bytes(8), 10_000),
    "absurd length": (WHOLE, bytes(8), 2**63),
    "not JSON": (b"{nonsense", bytes(8), None),
    "not UTF-8": (b'{"\xff": 1}', bytes(8), None),
    "UTF-8 after a mark": (json.dumps(WHOLE).encode("utf-8-sig"), bytes(8), None),
    "UTF-16": (json.dumps(WHOLE).encode("utf-16"), bytes(8), None),
    "UTF-32": (json.dumps(WHOLE).encode("utf-32-le"), bytes(8), None),
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
    "a shape that is a table": (entry(shape={}), bytes(4), None),
    "a shape that is a text": (entry(shape=""), bytes(4), None),
    "a bool for a length": (entry(shape=[True]), bytes(4), None),
    "too many axes": (entry(shape=[1] * (MOST_AXES + 1)), bytes(4), None),
    "an empty array that no memory holds": (entry(shape=[0, 2**31, 2**31], data_offsets=[0, 0]), b"", None),
    "a dtype that writes to the terminal": (entry(dtype="\x1b[31m"), bytes(4), None),
    "a dtype without end": (entry(dtype="F" * 100_000, data_offsets=[4, 0]), bytes(4), None),
    "a dtype that is a list": (entry(dtype=["F32"]), bytes(4), None),
    "three offsets": (entry(data_offsets=[0, 4, 8]), bytes(4), None),
    "bytes for another dtype": (entry(dtype="F16"), bytes(4), None),
    "a length of 5000 digits": (b'{"t":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}", bytes(4), None),
    "a length that is NaN": (entry(shape=[float("nan")]), bytes(4), None),
    "a name longer than sense": ({"n" * (LONGEST_NAME + 1): WHOLE["t"]}, bytes(8), None),
    "metadata that is a list": ({"__metadata__": ["a"], **WHOLE}, bytes(8), None),
    "metadata that is not text": ({"__metadata__": {"rank": 4}, **WHOLE}, bytes(8), None),
    "metadata in tables": ({"__metadata__": {"a": {"b": "c"}}, **WHOLE}, bytes(8), None),
    "metadata twice": (b'{"__metadata__":{"a":"b","a":"c"}}', b"", None),
    "overlap": (two([0, 4], [0, 4]), bytes(4), None),
    "a gap": (two([0, 4], [8, 12]), bytes(12), None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_with_the_file_named(case: str, tmp_path: Path) -> None:
    header, data, length = HOSTILE[case]
    file = file_with(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(Refusal) as refusal:
        open_safetensors(file)
    assert str(file) in refusal.value.what
    assert refusal.value.what.isprintable()
    assert len(refusal.value.what) < len(str(file)) + 300


@pytest.mark.parametrize("size", range(9))
def test_a_file_too_short_for_a_header_is_refused(size: int, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(bytes(size))
    with pytest.raises(Refusal, match="header"):
        open_safetensors(file)


def costly(name: str) -> bytes:
    """A header of nearly the largest size whose parts are each as dear as they can be."""
    part, parts = {
        "tables": (b'{"":0},', 7),
        "lists": (b"[],", 3),
        "numbers": (b"300,", 4),
        "fractions": (b"1e5,", 4),
        "texts": (b'"ab",', 5),
        "wide texts": ('"\U0001f600",'.encode(), 7),
    }[name]
    return b'{"t":[' + part * (safetensors_file.LARGEST_HEADER // parts - 10) + b"0]}"


def many(count: int) -> bytes:
    parts = [
        b'"layers.%d.q":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}' % (i, 4 * i, 4 * i + 4)
        for i in range(count)
    ]
    return b"{" + b",".join(parts) + b"}"


LARGE = {
    "a million tensors": (lambda: many(1_000_000), b""),
    "a million names": (lambda: b"{" + b",".join(b'"%x":0' % i for i in range(1_000_000)) + b"}", b""),
    "just under the most names": (
        lambda: b"{" + b",".join(b'"%x":0' % i for i in range(799_000)) + b"}",
        b"",
    ),
    "the most metadata": (
        lambda: b'{"__metadata__":{' + b",".join(b'"%x":"%x"' % (i, i) for i in range(700_000)) + b"}}",
        b"",
    ),
    **{f"many {name}": (lambda name=name: costly(name), b"") for name in ("tables", "lists", "numbers")},
    **{
        f"many {name}": (lambda name=name: costly(name), b"") for name in ("fractions", "texts", "wide texts")
    },
    "the most tensors that open": (lambda: many(MOST_TENSORS), bytes(4 * MOST_TENSORS)),
}


@pytest.mark.parametrize("case", LARGE)
def test_no_header_takes_a_gigabyte_or_more_than_seconds(case: str, tmp_path: Path) -> None:
    header, data = LARGE[case]
    file = file_with(tmp_path / "x.safetensors", header(), data)
    opening = measured_opening(file, "pamctl.adapters.safetensors_file", "open_safetensors")
    assert opening.refused == (case not in OPENING)
    assert opening.megabytes < 1000
    assert opening.seconds < 10


OPENING = {"the most tensors that open", "the most metadata"}


def test_a_header_larger_than_any_adapters_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    length = safetensors_file.LARGEST_HEADER + 1
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", length))
        stream.truncate(8 + length)
    with pytest.raises(Refusal, match=f"a header of {length} bytes, more than"):
        open_safetensors(file)


NUMBERS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_read_as_the_safetensors_library_writes_them(name: str, tmp_path: Path) -> None:
    dtype = NUMBERS[name]
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    save_file({"x": np.ones(7, np.float32), "y": values}, tmp_path / "x.safetensors", {"made": "by hand"})
    opened = open_safetensors(tmp_path / "x.safetensors")
    assert (opened["y"].dtype, opened["y"].shape, opened["y"].size) == (name, (3, 5), values.nbytes)
    assert opened.metadata == {"made": "by hand"}
    assert opened.stored("y").dtype == dtype
    assert opened.read("y").dtype == np.float32
    np.testing.assert_array_equal(opened.stored("y").view(np.uint8), values.view(np.uint8))
    np.testing.assert_array_equal(opened.read("y"), values.astype(np.float32))


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    save_file({"alpha": np.array(4, np.float32), "none": np.zeros((0, 3), np.float32)}, tmp_path / "x")
    opened = open_safetensors(tmp_path / "x")
    assert opened.read("alpha") == 4
    assert opened.read("none").shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused_by_name_when_read(bad: float, tmp_path: Path) -> None:
    save_file({"weights": np.array([1, bad], np.float32)}, tmp_path / "x")
    opened = open_safetensors(tmp_path / "x")
    for read in (opened.read, opened.stored):
        with pytest.raises(Refusal, match="weights holds NaN or Inf"):
            read("weights")


def test_a_double_too_large_for_float32_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"weights": np.array([1e300])}, tmp_path / "x")
    opened = open_safetensors(tmp_path / "x")
    assert opened.stored("weights") == [1e300]
    with pytest.raises(Refusal, match=r"weights goes beyond .*, the largest F32"):
        opened.read("weights")


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    opened = open_safetensors(file_with(tmp_path / "x.safetensors", WHOLE))
    entry = replace(opened["t"], offset=opened["t"].offset + 4)
    with pytest.raises(Refusal, match="ends after 4 of 8 bytes"):
        replace(opened, entries={"t": entry}).read("t")


def test_numbers_that_pamctl_cannot_read_are_refused_when_read_and_not_before(tmp_path: Path) -> None:
    save_file({"t": np.arange(3)}, tmp_path / "x.safetensors")
    opened = open_safetensors(tmp_path / "x.safetensors")
    with pytest.raises(Refusal, match="t is I64"):
        opened.read("t")


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((3, 1), np.float32).T}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    dtypes = {"a": "BF16", "b": "F32"}
    write_safetensors(tmp_path / "x", shapes, tensors.items(), dtypes, {"rank": "4"})
    loaded = load_file(tmp_path / "x")
    assert list(loaded) == ["a", "b"]
    assert [values.dtype for values in loaded.values()] == [ml_dtypes.bfloat16, np.float32]
    for name, values in tensors.items():
        np.testing.assert_array_equal(loaded[name].astype(np.float32), values)
    opened = open_safetensors(tmp_path / "x")
    assert list(opened) == ["a", "b"]
    assert opened.metadata == {"format": "pt", "rank": "4"}
    assert opened["a"].offset % 8 == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_never_written(bad: float, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="t came out as NaN"):
        write_safetensors(tmp_path / "x", {"t": (1,)}, [("t", np.array([bad], np.float32))], {"t": "F32"})


@pytest.mark.parametrize(
    ("dtype", "large"), [("F16", 70_000), ("BF16", 3.4e38), ("F8_E5M2", 1e6), ("F8_E4M3", 1e3)]
)
def test_a_number_beyond_its_dtype_is_refused_and_not_written_as_inf(dtype: str, large: float) -> None:
    with pytest.raises(Refusal, match=f"t goes beyond .*, the largest {dtype}") as refusal:
        rounded_to(np.array([large], np.float32), dtype, "t")
    assert "--dtype" in refusal.value.way_on


def test_numbers_too_small_for_f16_are_refused_and_not_written_as_others() -> None:
    """A kohya alpha of 1 at rank 128 makes them so when it is folded in."""
    values = np.random.default_rng(0).standard_normal((8, 8), np.float32)
    for size in (1.0, 1e-3, 1e-5, 0.0):
        np.testing.assert_allclose(rounded_to(size * values, "F16", "t"), size * values, atol=3e-8, rtol=1e-3)
    with pytest.raises(Refusal, match=r"t loses 1\.\d\d % in F16") as refusal:
        rounded_to(np.float32(1e-6) * values, "F16", "t")
    assert "--dtype" in refusal.value.way_on
    with pytest.raises(Refusal, match="t loses 100 % in F16"):
        rounded_to(np.float32(1e-9) * values, "F16", "t")
    rounded_to(np.float32(1e-6) * values, "BF16", "t")
    smallest = np.array([2.0**-24], np.float32)
    assert rounded_to(smallest, "F16", "t") == smallest


def test_tensors_given_in_another_order_or_shape_are_a_programming_error(tmp_path: Path) -> None:
    ones = np.ones(2, np.float32)
    for given in ([("b", ones)], [("a", np.ones(3, np.float32))], []):
        with pytest.raises(ValueError, match=r"expected a|shorter"):
            write_safetensors(tmp_path / "x", {"a": (2,)}, given, {"a": "F32"})


@pytest.mark.parametrize("how", ["renamed over", "written over"])
def test_a_file_that_changes_between_opening_and_reading_is_refused(tmp_path: Path, how: str) -> None:
    """The same names and sizes at other places: read by the old header it would be another tensor."""
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first, second = np.zeros(3, np.float32), np.ones(3, np.float32)
    save_file({"a": first, "b": second}, path)
    write_safetensors(
        other, {"b": (3,), "a": (3,)}, {"b": second, "a": first}.items(), {"a": "F32", "b": "F32"}
    )
    tensors = open_safetensors(path)
    assert tensors.stored("a").tolist() == [0, 0, 0]
    if how == "renamed over":
        other.rename(path)
    else:
        path.write_bytes(other.read_bytes())
    for read in (tensors.stored, tensors.read, lambda name: tensors.numbers([name])):
        with pytest.raises(Refusal, match=r"a\.safetensors has changed since it was opened"):
            read("a")
