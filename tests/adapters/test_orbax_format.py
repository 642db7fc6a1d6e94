import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

from pamctl.adapters import Adapter, open_adapter, save_adapter, write_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import LoraFactors
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.tensor_file import DTYPES
from pamctl.refusal import Refusal
from tests.adapter_cases import adapters, delta, random_adapter, random_factors, same_deltas
from tests.hub_server import serve

METADATA = "_CHECKPOINT_METADATA"
Q_PROJ = 1  # the index of language_model.layers.0.self_attn.q_proj in a random adapter


def written(adapter: Adapter, folder: Path, **options: Any) -> Path:
    folder.mkdir(parents=True)
    save_adapter(adapter, folder, "orbax", WriteOptions(**options))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(random_adapter(), tmp_path_factory.mktemp("orbax") / "adapter")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@settings(max_examples=25)
@given(
    adapter=adapters(conv=("conv_in", "mid.conv"), embedding=("language_model.embed_tokens",)),
    dtype=st.sampled_from(["F32", "F16", "BF16"]),
    compact=st.booleans(),
)
def test_what_is_written_reads_back_as_the_same_deltas(
    adapter: Adapter, dtype: str, compact: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = written(adapter, tmp_path_factory.mktemp("orbax") / "out", dtype=dtype, compact=compact)
    back = open_adapter(folder)
    same_deltas(back, adapter, dtype)
    assert {shape.dtype for shape in back.shapes.values()} == {dtype}
    if compact:
        assert [shape.rank for shape in back.shapes.values()] == [s.rank for s in adapter.shapes.values()]


def test_orbax_restores_the_tree_that_the_metadata_describes(tmp_path: Path) -> None:
    adapter = random_adapter(scale=2.0)
    folder = written(adapter, tmp_path / "out")
    tree, ours = ocp.load(folder.absolute()), ocp.metadata(folder.absolute()).custom_metadata
    assert list(tree) == ["modules"]
    assert [record["id"] for record in ours["modules"]] == list(adapter.shapes)
    for index, record in enumerate(ours["modules"]):
        factors = LoraFactors(*(np.asarray(tree["modules"][str(index)][name]) for name in "ab"))
        np.testing.assert_array_equal(delta(factors), delta(adapter.modules[record["id"]].folded()))


def test_an_adapter_keeps_its_fingerprint_record_and_base(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a",))
    back = open_adapter(written(adapter, tmp_path / "out"))
    assert back.fingerprint == adapter.fingerprint
    assert back.provenance is not None
    assert (back.provenance.tasks, back.base_model) == (("a",), "tiny")
    assert back.origin is not None
    assert (back.origin.format, back.origin.path) == ("orbax", tmp_path / "out")
    assert ocp.is_orbax_checkpoint(tmp_path / "out")


def test_what_is_no_delta_passes_through_in_its_dtype(tmp_path: Path) -> None:
    values = {
        f"norm.{index}": np.arange(6).reshape(shape).astype(dtype)
        for index, (dtype, shape) in enumerate(
            zip(DTYPES.values(), [(6,), (2, 3), (6, 1), (3, 2), (6,), (1, 6)], strict=True)
        )
    }
    values["scalar.bias"] = np.array(3, np.float16)
    dtypes = {dtype: name for name, dtype in DTYPES.items()}
    extras = {
        name: Extra("module", value.shape, dtypes[value.dtype], lambda value=value: value)
        for name, value in values.items()
    }
    back = open_adapter(written(Adapter(random_adapter().modules, extras=extras), tmp_path / "out"))
    assert back.extras.keys() == extras.keys()
    for name, extra in back.extras.items():
        assert (extra.role, extra.shape, extra.dtype) == ("module", values[name].shape, extras[name].dtype)
        assert extra.read().dtype == values[name].dtype
        np.testing.assert_array_equal(extra.read().astype(np.float64), values[name].astype(np.float64))


def test_an_empty_extra_is_refused_by_name(tmp_path: Path) -> None:
    empty = Extra("module", (2, 0), "F32", lambda: np.zeros((2, 0), np.float32))
    with pytest.raises(Refusal, match=r"x\.weight \[2, 0\] is empty"):
        written(Adapter(random_adapter().modules, extras={"x.weight": empty}), tmp_path / "out")


def test_equal_adapters_give_equal_bytes_with_no_time_and_no_path_in_them(tmp_path: Path) -> None:
    one = written(random_adapter(), tmp_path / "one")
    two = written(random_adapter(), tmp_path / "deeper/two")
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(two) for file in two.rglob("*") if file.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
        assert b"/tmp" not in (one / file).read_bytes() or str(file).endswith("/0.0")
    assert json.loads((one / METADATA).read_bytes())["commit_timestamp_nsecs"] == 0


@pytest.mark.parametrize(
    "id", ["../../escape", "/etc/passwd", "a/b", ".", "..", "x" * 400, "Ünïcode", "a b.a"]
)
def test_no_id_becomes_a_path(id: str, tmp_path: Path) -> None:
    adapter = Adapter(
        {
            id: random_factors(0, 3, 4),
            f"{id}.a": random_factors(1, 4, 3),
            id.upper() + "y": random_factors(2, 2, 2),
        }
    )
    back = open_adapter(written(adapter, tmp_path / "in/out"))
    same_deltas(back, adapter)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]


def test_opening_reads_no_numbers_and_a_module_only_its_own(copy: Path) -> None:
    opened = open_adapter(copy)
    for chunk in copy.glob("state/*/0.0"):
        if not chunk.parent.name.startswith(f"modules.{Q_PROJ}."):
            chunk.unlink()
    expected = random_adapter().modules["language_model.layers.0.self_attn.q_proj"]
    found = opened.modules["language_model.layers.0.self_attn.q_proj"]
    np.testing.assert_array_equal(delta(found), delta(expected))
    with pytest.raises(Refusal, match="is missing"):
        opened.modules["language_model.layers.0.mlp.gate_proj"]


def test_neither_opening_nor_reading_imports_jax(checkpoint: Path) -> None:
    script = (
        "import sys; from pamctl.adapters import open_adapter; a = open_adapter(sys.argv[1]); a.fingerprint;"
        "print(sorted({'jax', 'orbax', 'tensorstore'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, checkpoint], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")


def change(text: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A change of our part of the metadata."""

    def changed(folder: Path) -> None:
        metadata = json.loads((folder / METADATA).read_bytes())
        text(metadata["custom_metadata"])
        (folder / METADATA).write_text(json.dumps(metadata))

    return changed


def change_first(**fields: Any) -> Callable[[Path], Any]:
    return change(lambda ours: ours["modules"][0].update(fields))


def zarr(**fields: Any) -> Callable[[Path], Any]:
    def changed(folder: Path) -> None:
        file = folder / HEADER
        file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))

    return changed


CHUNK = f"state/modules.{Q_PROJ}.a/0.0"
HEADER = f"state/modules.{Q_PROJ}.a/.zarray"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "metadata cut": (lambda folder: os.truncate(folder / METADATA, 80), "is not JSON"),
    "metadata empty": (lambda folder: os.truncate(folder / METADATA, 0), "is not JSON"),
    "metadata a list": (lambda folder: (folder / METADATA).write_text("[]"), "not hold an object"),
    "an array cut": (lambda folder: os.truncate(folder / CHUNK, 100), "100 bytes, where .*q_proj takes 256"),
    "an array longer": (lambda folder: os.truncate(folder / CHUNK, 257), "has 257 bytes"),
    "an array gone": (lambda folder: (folder / CHUNK).unlink(), "is missing, which belongs to a of .*q_proj"),
    "all arrays gone": (lambda folder: shutil.rmtree(folder / "state"), "is missing"),
    "a device for an array": (
        lambda folder: ((folder / CHUNK).unlink(), (folder / CHUNK).symlink_to("/dev/zero")),
        "is missing",
    ),
    "zarr header gone": (lambda folder: (folder / HEADER).unlink(), "is missing"),
    "zarr header cut": (lambda folder: os.truncate(folder / HEADER, 9), "is not JSON"),
    "columns first": (zarr(order="F"), "order is not 'C'"),
    "compressed": (zarr(compressor={"id": "zstd"}), "compressor is not None"),
    "another dtype": (zarr(dtype="<i4"), "dtype is not '<f4'"),
    "another shape": (zarr(shape=[16, 4]), r"shape is not \[4, 16\]"),
    "NaN": (lambda folder: (folder / CHUNK).write_bytes(b"\xff" * 256), "a of .*q_proj holds NaN"),
    "schema of tomorrow": (change(lambda ours: ours.update(schema="pamctl.orbax/2")), "is 'pamctl.orbax/2'"),
    "no modules": (change(lambda ours: ours.pop("modules")), "modules is not a list"),
    "modules a text": (change(lambda ours: ours.update(modules="x")), "modules is not a list"),
    "modules of texts": (change(lambda ours: ours.update(modules=["x"])), "modules is not a list"),
    "nothing": (change(lambda ours: ours.update(modules=[])), "holds no arrays"),
    "too many": (change(lambda ours: ours.update(modules=[{}] * 100_001)), "more than 100000"),
    "an id twice": (change(lambda ours: ours["modules"].append(ours["modules"][0])), "stands twice"),
    "no id": (change_first(id=None), "is no id"),
    "an id with NUL": (change_first(id="x\0y"), "is no id"),
    "an endless id": (change_first(id="x" * 10_000), "is no id"),
    "a shape of text": (change_first(a="4"), "is no array"),
    "a shape below 0": (change_first(a=[-4, 16]), "is no array"),
    "a shape with 0": (change_first(a=[0, 16]), "is no array"),
    "a huge shape": (change_first(a=[2**40, 2**40]), "is no array"),
    "many axes": (change_first(a=[1] * 9), "is no array"),
    "no dtype": (change_first(dtype=None), "is no array"),
    "a dtype that is none": (change_first(dtype=["F32"]), "is no array"),
    "no b": (change(lambda ours: ours["modules"][0].pop("b")), "is no array"),
    "unlike factors": (change_first(a=[16, 4]), "not the factors of one module"),
    "another layer": (change_first(layer="conv"), "is 'conv', but its arrays are linear"),
    "a layer that is none": (change_first(layer={}), "is dict, but its arrays are linear"),
    "an extra too much": (
        change(lambda ours: ours["extras"].append({"id": "x", "dtype": "F32", "shape": [1]})),
        "extras.0/0 is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name_and_in_silence(
    damage: str, copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, named = DAMAGE[damage]
    spoil(copy)
    with pytest.raises(Refusal, match=named) as refused:
        open_adapter(copy).fingerprint  # noqa: B018
    assert str(copy) in refused.value.what
    assert capfd.readouterr() == ("", "")


def test_an_extra_of_an_unknown_role_is_refused(tmp_path: Path) -> None:
    extra = Extra("bias", (2,), "F32", lambda: np.ones(2, np.float32))
    folder = written(Adapter(random_adapter().modules, extras={"x.bias": extra}), tmp_path / "out")
    change(lambda ours: ours["extras"][0].update(role="spell"))(folder)
    with pytest.raises(Refusal, match=r"x\.bias is 'spell'"):
        open_adapter(folder)


@pytest.mark.parametrize("metadata", [None, {"schema": "another tool's"}, {"schema": 3}])
def test_a_checkpoint_of_another_tool_is_refused_as_such(metadata: Any, tmp_path: Path) -> None:
    ocp.save(tmp_path / "foreign", {"params": np.ones((2, 2), np.float32)}, custom_metadata=metadata)
    with pytest.raises(Refusal, match="is an orbax checkpoint, but not of an adapter"):
        open_adapter(tmp_path / "foreign")


def test_a_training_checkpoint_is_refused_with_the_adapters_place_told(tmp_path: Path) -> None:
    from pamctl.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(tmp_path / "out.checkpoints", {}, 1)
    (tmp_path / "out.checkpoints").mkdir()
    (tmp_path / "out.checkpoints/metrics.jsonl").touch()
    checkpoints.save(3, {"lora": np.ones(2, np.float32)}, 0)
    checkpoints.close()
    with pytest.raises(Refusal, match="not of an adapter") as refused:
        open_adapter(tmp_path / "out.checkpoints/steps/arrays/3")
    assert "of a training run that is the folder given as -o" in refused.value.way_on


def test_writing_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_adapter(random_adapter(), tmp_path / "out", "orbax")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.root.manager.disable == logging.NOTSET


def test_a_disk_without_room_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: its signal is ignored, so that writing fails."""
    script = (
        "import resource, signal, sys; from pathlib import Path; from orbax.checkpoint import v1\n"
        "from tests.adapter_cases import random_factors; from pamctl.adapters import Adapter, write_adapter\n"
        "from pamctl.refusal import Refusal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try: write_adapter(Adapter({'x': random_factors(0, 1000, 1000, 100)}), Path(sys.argv[1]), 'orbax')\n"
        "except Refusal as refusal: print(refusal.what)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{tmp_path / 'out'} cannot be written: File too large\n"
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_a_checkpoint_is_fetched_from_the_hub(checkpoint: Path, tmp_path: Path) -> None:
    files = {
        file.relative_to(checkpoint).as_posix(): file.read_bytes()
        for file in checkpoint.rglob("*")
        if file.is_file()
    }
    script = (
        "import sys; from pamctl.adapters import open_adapter; print(open_adapter(sys.argv[1]).fingerprint)"
    )
    with serve() as hub:
        hub.repository("org/name").commit({f"sub/{name}": content for name, content in files.items()})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        run = subprocess.run(
            [sys.executable, "-c", script, "hf://org/name/sub"],
            env=environment | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (run.stdout, run.returncode) == (f"{random_adapter().fingerprint}\n", 0), run.stderr


def test_an_array_replaced_between_opening_and_reading_is_refused(copy: Path) -> None:
    """Arrays are named by their place in the checkpoint: in another of the same sizes they may be others."""
    opened = open_adapter(copy)
    (copy / CHUNK).write_bytes(bytes(256))
    with pytest.raises(Refusal, match=r"0\.0 has changed since it was opened"):
        dict(opened.modules)
