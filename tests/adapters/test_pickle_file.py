import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pamctl.adapters.pickle_file import open_pickle
from pamctl.adapters.tensor_pickle import unpickled
from pamctl.refusal import Refusal
from tests.measured_opening import measured_opening
from tests.pickle_cases import (
    NO_HOOKS,
    START,
    STOP,
    number,
    numbers,
    storage,
    table,
    tensor,
    text,
    torch_file,
    write_torch,
)

ONE = {"0": bytes(8)}
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(file: Path) -> str:
    with pytest.raises(Refusal) as refusal:
        open_pickle(file)
    assert str(file) in refusal.value.what
    assert refusal.value.what.isprintable()
    assert len(refusal.value.what) < len(str(file)) + 300
    assert "safetensors" in refusal.value.way_on
    return refusal.value.what


def of_one(value: bytes) -> bytes:
    return START + table({"t": value}) + STOP


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_are_read_where_they_lie(dtype: Any, tmp_path: Path) -> None:
    tensors = {"a": WEIGHTS.astype(dtype), "b": np.array(4, dtype), "empty": np.zeros((0, 3), dtype)}
    opened = open_pickle(write_torch(tmp_path / "x.bin", tensors))
    assert list(opened) == list(tensors)
    assert opened.metadata == {}
    for name, values in tensors.items():
        np.testing.assert_array_equal(opened.stored(name), values)
        assert opened.read(name).dtype == np.float32


def test_a_view_begins_inside_its_storage(tmp_path: Path) -> None:
    pickled = of_one(tensor((2, 4), length=12, offset=4))
    opened = open_pickle(torch_file(tmp_path / "x.bin", pickled, {"0": WEIGHTS.tobytes()}))
    np.testing.assert_array_equal(opened.read("t"), WEIGHTS[1:])


def test_a_parameter_is_its_tensor(tmp_path: Path) -> None:
    pickled = of_one(b"ctorch._utils\n_rebuild_parameter\n(" + tensor((2,)) + b"\x88" + NO_HOOKS + b"tR")
    assert open_pickle(torch_file(tmp_path / "x.bin", pickled, ONE))["t"].shape == (2,)


def test_a_nested_state_dict_is_read_with_the_plain_values_beside_it_as_metadata(tmp_path: Path) -> None:
    values = {
        "epoch": number(3),
        "rate": b"G" + struct.pack(">d", 0.5),
        "name": text("cat"),
        "best": b"\x88",
        "seed": b"N",
        "state_dict": table({"t": tensor((2,))}),
    }
    opened = open_pickle(torch_file(tmp_path / "x.ckpt", START + table(values) + STOP, ONE))
    assert list(opened) == ["t"]
    assert opened.metadata == {"epoch": "3", "rate": "0.5", "name": "cat", "best": "True", "seed": "None"}


def test_the_layer_versions_that_torch_hangs_on_a_state_dict_are_let_go(tmp_path: Path) -> None:
    state = NO_HOOKS + b"(" + text("t") + tensor((2,)) + b"u"
    versions = table({"_metadata": NO_HOOKS + text("") + table({"version": number(1)}) + b"s"})
    opened = open_pickle(torch_file(tmp_path / "x.bin", START + state + versions + b"b" + STOP, ONE))
    assert list(opened) == ["t"]


class Malicious:
    """Its pickle runs a command."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "system"), (eval, "eval"), (exec, "exec"), (open, "open")]
)
def test_a_pickle_that_would_run_code_does_not_and_says_what_it_would_run(
    function: Any, name: str, protocol: int, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    argument = {"system": f"touch {marker}", "open": str(marker)}.get(name, f"open({str(marker)!r}, 'w')")
    pickled = pickle.dumps(Malicious(function, argument, *(["w"] if name == "open" else [])), protocol)
    what = refused(torch_file(tmp_path / "x.bin", pickled))
    assert "it would run " in what
    assert what.endswith(f".{name}")
    assert not marker.exists()


def test_the_marker_would_be_made_by_pickle_itself(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Malicious(os.system, f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (b"cos\nsystem\n", "os.system"),
        (b"cbuiltins\ngetattr\n", "builtins.getattr"),
        (b"c__builtin__\neval\n", "__builtin__.eval"),
        (b"ctorch\n_utils._rebuild_tensor_v2\n", "torch._utils._rebuild_tensor_v2"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "torch._utils._rebuild_tensor_v2.__globals__"),
        (b"ccollections\nOrderedDict.fromkeys\n", "collections.OrderedDict.fromkeys"),
        (b"ctorch.hub\nload\n", "torch.hub.load"),
        (b"c" + text("os")[5:] + b"\n\x1b[31m\n", r"'os.\x1b[31m'"),
        (text("os") + text("system") + b"\x93", "os.system"),
        (b"(" + text("touch marker") + b"ios\nsystem\n", "os.system"),
        (b"c" + b"a" * 10_000 + b"\nb\n", "a" * 100),
    ],
)
def test_a_global_that_is_no_tensors_is_named(wanted: bytes, said: str, tmp_path: Path) -> None:
    file = torch_file(tmp_path / "x.bin", of_one(wanted + b")R"))
    assert refused(file) == f"{file}: it would run {said}"


UNPICKLABLE = {
    "an extension": (b"\x82\x01", "opcode EXT1"),
    "an extension by two bytes": (b"\x83\x01\x00", "opcode EXT2"),
    "an extension by four": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "an unknown opcode": (b"\xff", "opcode"),
    "a duplicate": (b"N2", "opcode DUP"),
    "a giant number": (b"\x8b\x00\x00\x00\x40", "opcode LONG4"),
    "a number as text": (b"I1\n", "opcode INT"),
    "an object": (b"ccollections\nOrderedDict\n)\x81", "opcode NEWOBJ"),
    "an instance of what is allowed": (b"(icollections\nOrderedDict\n", "opcode INST"),
    "a persistent id as text": (b"Pstorage\n", "opcode PERSID"),
    "a call of a table": (b"})R", "would call dict"),
    "a call of what a call gave": (NO_HOOKS + b")R", "would call dict"),
    "a call of a storage class": (b"ctorch\nFloatStorage\n)R", "would call torch.FloatStorage"),
    "a call of a text": (text("os") + b")R", "would call str"),
    "a call without a tuple": (b"ccollections\nOrderedDict\n]R", "would call"),
    "an OrderedDict of something": (b"ccollections\nOrderedDict\n(]tR", "1 arguments where 0"),
    "too few arguments": (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "0 arguments where 6"),
    "attributes of a table": (b"}}" + text("__class__") + b"Nsb", "attributes of dict"),
    "attributes of a tensor": (
        tensor((2,)) + b"}" + text("_metadata") + b"Nsb",
        "attributes of PickledTensor",
    ),
    "attributes of a function": (b"ccollections\nOrderedDict\n}b", "attributes of collections.OrderedDict"),
    "a persistent id that is text": (text("os") + b"Q", "refers to str"),
    "a persistent id of another kind": (b"(" + text("module") + b"NNNNtQ", "not a storage"),
    "a persistent id of no storage class": (b"(" + text("storage") + b"NNNNtQ", "not a storage"),
    "a storage named by a number": (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + number(0) + text("cpu") + number(2) + b"tQ",
        "int where str",
    ),
    "items of a tensor": (tensor((2,)) + text("a") + b"Ns", "sets items of PickledTensor"),
    "an odd number of items": (b"}(Nu", "sets items of dict"),
    "a key that is a tuple": (b"})Ns", "a key of the pickle is tuple"),
    "appended to a table": (b"}Na", "appends to dict"),
    "a memo never put": (b"h\x05", "never put"),
    "a mark never set": (b"t", "never put"),
    "nothing to pop": (b"\x85\x85R", "would call tuple|never put"),
    "a text beyond the end": (b"X\xff\xff\xff\xff", "broken off"),
    "a text that is not UTF-8": (b"X\x01\x00\x00\x00\xff", "utf-8"),
    "a negative size": (tensor((-2, -1)), "malformed shape"),
    "a size beyond any memory": (tensor((2**31, 2**31), length=2), "malformed shape"),
    "an empty array beyond numpy": (
        tensor((0, 2**30, 2**30), length=0, strides=(1, 1, 1)),
        "malformed shape",
    ),
    "a hundred axes": (tensor((1,) * 100), "malformed shape"),
    "a stride too few": (tensor((2, 1), strides=(1,)), "malformed shape"),
    "a bool for a size": (tensor((2,)).replace(numbers((2,)), b"(\x88t", 1), "malformed shape"),
    "a negative offset": (tensor((2,), offset=-1), "no size"),
    "a tensor of no storage": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(N" + number(0) + b"))N" + NO_HOOKS + b"tR",
        "NoneType where PickledStorage",
    ),
    "hooks": (tensor((2,)).replace(NO_HOOKS, b"}NNs"), "a key of the pickle is NoneType"),
    "hooks by name": (tensor((2,)).replace(NO_HOOKS, table({"a": b"N"})), "has hooks"),
    "a bit that negates": (tensor((2,), more=table({"neg": b"\x88"})), "negated"),
}


@pytest.mark.parametrize("case", UNPICKLABLE)
def test_a_hostile_pickle_is_refused(case: str, tmp_path: Path) -> None:
    value, said = UNPICKLABLE[case]
    what = refused(torch_file(tmp_path / "x.bin", of_one(value), ONE))
    assert any(part in what for part in said.split("|")), what


OTHERWISE = {
    "a list": (b"]", "it holds a list"),
    "nothing": (b"N", "it holds a NoneType"),
    "a tensor alone": (tensor((2,)), "it holds a PickledTensor"),
    "a table of tables": (table({"model": b"}"}), "model is a dict"),
    "a state dict in a state dict": (
        table({"state_dict": table({"state_dict": b"}"})}),
        "state_dict is a dict",
    ),
    "a list of numbers": (table({"sizes": b"](K\x01e"}), "sizes is a list"),
    "tensors in two places": (table({"t": tensor((2,)), "state_dict": b"}"}), "beside its state_dict"),
    "a name twice": (b"}" + text("t") + b"Ns" + text("t") + b"Ns", "'t' stands twice"),
    "a name that is a number": (b"}" + number(3) + b"Ns", "names a value 3"),
    "a name that writes to the terminal": (table({"\x1b[31m": b"N"}), r"'\x1b[31m'"),
    "a name without end": (table({"a" * 100_000: b"N"}), "names a value 'aaa"),
    "an alpha that is no tensor": (table({"up.alpha": number(4)}), "up.alpha is a int"),
    "a table that holds itself": (b"}q\x00" + text("me") + b"h\x00s", "me is a dict"),
    "a state dict that is itself": (b"}q\x00" + text("state_dict") + b"h\x00s", "state_dict is a dict"),
    "numbers that are not there": (table({"t": tensor((2,), key="7")}), "numbers of t are not in the zip"),
    "numbers by another path": (
        table({"t": tensor((2,), key="../data/0")}),
        "numbers of t are not in the zip",
    ),
    "a storage of another size": (table({"t": tensor((2,), length=3)}), "not 12 bytes"),
    "a tensor beyond its storage": (table({"t": tensor((2,), length=2, offset=1)}), "byte 12 of 8"),
    "an offset beyond any file": (table({"t": tensor((2,), offset=2**62)}), "of 8"),
    "columns": (table({"t": tensor((1, 2), strides=(1, 1)), "u": tensor((2, 1), strides=(1, 2))}), ""),
    "strides of another order": (
        table({"t": tensor((2, 2), length=2, strides=(0, 1))}),
        "t [2, 2] is not cont",
    ),
    "one storage as two dtypes": (
        table({"t": tensor((2,)), "u": tensor((4,), kind="torch\nHalfStorage")}),
        "u is F16 and shares",
    ),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_what_is_not_a_table_of_whole_tensors_is_refused_by_name(case: str, tmp_path: Path) -> None:
    pickled, said = OTHERWISE[case]
    file = torch_file(tmp_path / "x.bin", START + pickled + STOP, ONE)
    if case == "columns":  # an axis of length 1 has no stride to speak of
        assert list(open_pickle(file)) == ["t", "u"]
    else:
        assert said in refused(file)


def laughs(depth: int) -> bytes:
    """Each tuple holds the one before ten times."""
    levels = [b"(" + b"h\x00" * 10 + b"tq\x00" for _ in range(depth)]
    return b")q\x00" + b"".join(levels)


WITHOUT_BOUND = {
    "a billion laughs": laughs(60),
    "a memo at 2**31": b"Nr\x00\x00\x00\x80" * 1000,
    "deep tuples": b")" + b"\x85" * 1_000_000,
    "deep marks": b"(" * 3_000_000,
    "many tables": b"}" * 3_000_000,
    "many texts": b"\x8c\x02ab" * 3_000_000,
    "many one-item tables": (b"}NNs").replace(b"NN", b"K\x01N") * 3_000_000,
    "steps without end": b"N" * 10_000_000,
    "a pickle of 17 MiB": text("a" * (17 << 20)),
    "a line without end": b"c" + b"a" * (15 << 20),
}


@pytest.mark.parametrize("case", WITHOUT_BOUND)
def test_no_pickle_takes_a_gigabyte_or_more_than_seconds(case: str, tmp_path: Path) -> None:
    file = torch_file(tmp_path / "x.bin", of_one(WITHOUT_BOUND[case]))
    opening = measured_opening(file, "pamctl.adapters.pickle_file", "open_pickle")
    assert opening.refused
    assert opening.megabytes < 1000
    assert opening.seconds < 10


def in_zip(change: Callable[[bytearray], Any]) -> Callable[[Path], Path]:
    """A whole file with bytes of its zip changed."""

    def write(path: Path) -> Path:
        raw = bytearray(write_torch(path, {"t": WEIGHTS}).read_bytes())
        path.write_bytes(change(raw) or raw)
        return path

    return write


def with_members(
    *names: str, method: int = zipfile.ZIP_STORED, pickled: bytes | None = None
) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), pickled or of_one(b"N"), compress_type=method)
        return path

    return write


def raw(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def at(magic: bytes, field: int, layout: str, value: int) -> Callable[[bytearray], None]:
    """Set one field of the last zip record of a kind."""

    def change(raw: bytearray) -> None:
        struct.pack_into(layout, raw, raw.rindex(magic) + field, value)

    return change


CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
UNZIPPABLE = {
    "empty": (raw(b""), "no file of torch.save"),
    "text": (raw(b"hello"), "no file of torch.save"),
    "a bare pickle": (raw(of_one(b"N")), "no file of torch.save"),
    "a legacy pickle": (raw(pickle.dumps(0x1950A86A20F9469CFC6C, 2)), "a pickle of torch before 1.6"),
    "a legacy tar": (raw(b"storages".ljust(257, b"\0") + b"ustar"), "a pickle of torch before 1.6"),
    "a magic and no more": (raw(b"PK\3\4"), "end record is missing"),
    "truncated": (in_zip(lambda raw: raw[:-1]), "end record is missing"),
    "half": (in_zip(lambda raw: raw[: len(raw) // 2]), "end record is missing"),
    "bytes before it": (in_zip(lambda raw: b"PK\3\4" + raw), "does not fit the file"),
    "bytes after it": (in_zip(lambda raw: raw + b"\0"), "end record is missing"),
    "a comment": (in_zip(at(END, 20, "<H", 1)), "does not fit the file"),
    "two disks": (in_zip(at(END, 4, "<H", 1)), "does not fit the file"),
    "a member too few": (in_zip(at(END, 8, "<I", 0x00030003)), "longer"),
    "a member too many": (in_zip(at(END, 8, "<I", 0x00050005)), "broken off"),
    "encrypted": (in_zip(at(CENTRAL, 8, "<H", 1)), "encrypted or compressed"),
    "compressed by its directory": (in_zip(at(CENTRAL, 10, "<H", 8)), "encrypted or compressed"),
    "compressed by its header": (in_zip(at(LOCAL, 8, "<H", 8)), "described twice"),
    "two sizes": (in_zip(at(CENTRAL, 20, "<I", 4)), "two sizes"),
    "a size that the header does not say": (in_zip(at(LOCAL, 22, "<I", 4)), "described twice"),
    "a checksum that the header does not say": (in_zip(at(LOCAL, 14, "<I", 4)), "described twice"),
    "another name in the header": (in_zip(at(LOCAL, 30, "<B", ord("b"))), "described twice"),
    "a header that is none": (in_zip(at(LOCAL, 0, "<B", 0)), "has no header"),
    "overlapping members": (in_zip(at(CENTRAL, 42, "<I", 3)), "where"),
    "a member beyond the file": (in_zip(at(CENTRAL, 42, "<I", 10**8)), "has no header"),
    "a directory elsewhere": (in_zip(at(END, 16, "<I", 0)), "does not fit the file"),
    "zip64 without its field": (
        in_zip(at(CENTRAL, 42, "<I", 0xFFFFFFFF)),
        "zip64 field of a member is missing",
    ),
    "a pickle of other bytes": (in_zip(lambda raw: raw.__setitem__(raw.index(b"torch"), 0)), "checksum"),
    "a deflated bomb": (
        with_members("archive/data.pkl", method=zipfile.ZIP_DEFLATED, pickled=bytes(100 << 20)),
        "encrypted or compressed",
    ),
    "no pickle": (with_members("archive/version"), "holds 0 pickles"),
    "no folder": (with_members("data.pkl"), "holds 0 pickles"),
    "two pickles": (with_members("a/data.pkl", "b/data.pkl"), "holds 2 pickles"),
    "a folder too deep": (with_members("a/b/data.pkl"), "holds 1 pickles"),
    "a path upwards": (with_members("archive/data.pkl", "../x"), "a member named '../x'"),
    "a path from the root": (with_members("archive/data.pkl", "/etc/x"), "a member named '/etc/x'"),
    "a path for Windows": (with_members("archive/data.pkl", "..\\x"), "a member named '..\\\\x'"),
    "a member that writes to the terminal": (with_members("archive/data.pkl", "\x1b[31m"), r"'\x1b[31m'"),
    "big-endian": (
        lambda path: torch_file(path, of_one(tensor((2,))), ONE, byteorder=b"big"),
        "not little-endian",
    ),
}


@pytest.mark.parametrize("case", UNZIPPABLE)
def test_a_hostile_zip_is_refused(case: str, tmp_path: Path) -> None:
    write, said = UNZIPPABLE[case]
    assert said in refused(write(tmp_path / "x.bin"))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    file = with_members("archive/data.pkl", "archive/data.pkl")(tmp_path / "x.bin")
    assert "holds archive/data.pkl twice" in refused(file)


def test_a_zip_of_a_million_members_is_refused_unread(tmp_path: Path) -> None:
    name = b"archive/data/0"
    member = struct.pack("<4s6H3I5H2I", CENTRAL, *[0] * 9, len(name), *[0] * 6) + name
    directory = member * 1_000_000
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0, 45, 0, 0, 1_000_000, 1_000_000, len(directory), 4)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 4 + len(directory), 1)
    end = struct.pack("<4s4H2IH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "x.bin").write_bytes(LOCAL + directory + wide + locator + end)
    assert "names 1000000 members" in refused(tmp_path / "x.bin")


def zip64(path: Path, disagree: bool = False) -> Path:
    """A file whose every size, offset and count stands in a zip64 record."""
    bodies = {"archive/data.pkl": of_one(tensor((2,))), "archive/data/0": np.array([1, 2], "<f4").tobytes()}
    raw, directory = bytearray(), bytearray()
    for name, body in bodies.items():
        crc, full = zlib.crc32(body), 0xFFFFFFFF
        sizes = struct.pack("<2H2Q", 1, 16, len(body), len(body) + disagree)
        place = struct.pack("<2H3Q", 1, 24, len(body), len(body), len(raw))
        directory += struct.pack("<4s6H", CENTRAL, 45, 45, 0, 0, 0, 0) + struct.pack("<3I", crc, full, full)
        directory += struct.pack("<5H2I", len(name), len(place), 0, 0, 0, 0, full) + name.encode() + place
        raw += struct.pack("<4s5H3I2H", LOCAL, 45, 0, 0, 0, 0, crc, full, full, len(name), len(sizes))
        raw += name.encode() + sizes + body
    start, end = len(raw), len(raw) + len(directory)
    raw += directory + struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, end - start, start)
    raw += struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    raw += struct.pack("<4s4H2IH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(raw)
    return path


def test_zip64_records_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(open_pickle(zip64(tmp_path / "x.bin")).read("t"), [1, 2])


def test_zip64_records_that_disagree_are_refused(tmp_path: Path) -> None:
    assert "described twice" in refused(zip64(tmp_path / "x.bin", disagree=True))
    raw = bytearray(zip64(tmp_path / "y.bin").read_bytes())
    at(END, 8, "<H", 1)(raw)
    (tmp_path / "y.bin").write_bytes(raw)
    assert "two end records disagree" in refused(tmp_path / "y.bin")


def test_a_file_without_byteorder_is_of_an_older_torch_and_little_endian(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("archive/data.pkl", of_one(tensor((2,))))
        archive.writestr("archive/data/0", np.array([1, 2], "<f4").tobytes())
    np.testing.assert_array_equal(open_pickle(tmp_path / "x.bin").read("t"), [1, 2])


def test_a_storage_never_used_does_no_harm(tmp_path: Path) -> None:
    pickled = of_one(storage("0", 2) + b"0" + tensor((2,)))
    assert "opcode POP" in refused(torch_file(tmp_path / "x.bin", pickled, ONE))


def test_nan_is_refused_when_read(tmp_path: Path) -> None:
    opened = open_pickle(write_torch(tmp_path / "x.bin", {"t": np.array([np.nan], np.float32)}))
    with pytest.raises(Refusal, match="t holds NaN or Inf"):
        opened.read("t")


def test_the_machine_gives_plain_values() -> None:
    values = {"a": [1, -2.5, None, True], "b": ("text", {3: ()}), "c": 2**70}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert unpickled(pickle.dumps(values, protocol)) == values
