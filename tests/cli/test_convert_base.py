"""`pamctl convert-base` as a user types it: a base in, a Hugging Face folder out, or nothing."""

import json
import os
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.models.base import load_base
from pamctl.models.checkpoint import EMBEDDED, open_checkpoint
from tests.training_cases import write_base

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: pamctl(["convert-base", *arguments], standalone_mode=False))


def weights(folder: str) -> dict[str, np.ndarray]:
    return {
        name: tensor
        for file in Path(folder).glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize("size", ["5GB", "2K", "1"])
def test_what_is_written_is_the_same_base_bit_for_bit(size: str, capsys: Capture) -> None:
    assert run("base", "-o", "out", "--max-shard-size", size) == 0
    assert capsys.readouterr().out == "out\n"
    before, after = load_base("base"), load_base("out")
    jax.tree.map(np.testing.assert_array_equal, after.parameters, before.parameters)
    assert after.fingerprint == before.fingerprint
    assert (after.dtype, after.lora_defaults) == (before.dtype, before.lora_defaults)


def test_shards_are_no_larger_than_asked_and_hold_each_tensor_once() -> None:
    assert run("base", "-o", "out", "--max-shard-size", "2K") == 0
    index = json.loads(Path("out/model.safetensors.index.json").read_text())
    held = {file.name: load_file(file) for file in Path("out").glob("*.safetensors")}
    assert {name: file for file, tensors in held.items() for name in tensors} == index["weight_map"]
    assert sorted(held) == [f"model-{n:05}-of-{len(held):05}.safetensors" for n in range(1, len(held) + 1)]
    assert len(held) > 2
    assert all(sum(tensor.nbytes for tensor in tensors.values()) <= 2048 for tensors in held.values())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights("base").values())


@pytest.mark.parametrize(("dtype", "numpy"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
def test_numbers_are_rounded_to_the_dtype_asked_for(dtype: str, numpy: type) -> None:
    assert run("base", "-o", "out", "--dtype", dtype) == 0
    before, after = weights("base"), weights("out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == numpy
        np.testing.assert_array_equal(after[name], tensor.astype(numpy))


def test_json_tells_the_same_in_a_dry_run_and_only_the_real_one_writes(capsys: Capture) -> None:
    assert run("base", "-o", "out", "--dtype", "bf16", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not Path("out").exists()
    assert run("base", "-o", "out", "--dtype", "bf16", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["schema"] == "pamctl.convert-base/1"
    assert planned == {**done, "output": None}
    assert done["dtypes"] == ["bf16"]
    assert done["bytes"] == sum(tensor.nbytes for tensor in weights("out").values())
    assert done["tensors"] == len(weights("out"))
    assert done["files"] == ["model.safetensors"]


def test_an_output_is_replaced_only_by_force_and_only_if_it_is_one(capsys: Capture) -> None:
    assert run("base", "-o", "out", "--max-shard-size", "1K") == 0
    assert run("base", "-o", "out") == 1
    assert "already exists" in capsys.readouterr().err
    assert run("base", "-o", "out", "--force") == 0
    assert [file.name for file in Path("out").glob("*.safetensors")] == ["model.safetensors"]
    Path("out/thesis.pdf").write_text("years of work")
    assert run("base", "-o", "out", "--force") == 1
    assert "holds thesis.pdf" in capsys.readouterr().err


def test_a_base_may_replace_itself() -> None:
    before = load_base("base").fingerprint
    assert run("base", "-o", "base", "--force", "--max-shard-size", "1K") == 0
    assert load_base("base").fingerprint == before


def test_a_fault_on_the_way_leaves_nothing(capsys: Capture) -> None:
    stored = open_checkpoint("base")
    last = stored.weights.groups[-1][-1].tensors[-1][0]
    file = Path("base/model.safetensors")
    raw = bytearray(file.read_bytes())
    tensors = {"".join(name.split(".vision_model")): name for name in load_file(file)}
    entry = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])[tensors[last.name(0)]]
    at = 8 + int.from_bytes(raw[:8], "little") + entry["data_offsets"][0]
    raw[at : at + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(raw)
    assert run("base", "-o", "out") == 1
    assert f"{tensors[last.name(0)]} holds NaN or Inf" in capsys.readouterr().err
    assert os.listdir() == ["base"]


def test_what_is_beside_the_weights_is_copied_or_made() -> None:
    assert run("tiny", "-o", "out") == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "lora.json"):
        stored = open_checkpoint().folder / name
        assert Path("out", name).read_bytes() == stored.read_bytes()
    assert load_base("out").fingerprint == load_base(EMBEDDED).fingerprint
    assert run("base", "-o", "other") == 0
    assert json.loads(Path("other/tokenizer_config.json").read_text())["pad_token"] == "<pad>"


def test_the_same_input_gives_the_same_bytes() -> None:
    for out in ("one", "two"):
        assert run("base", "-o", out, "--max-shard-size", "2K") == 0
    for file in Path("one").iterdir():
        assert file.read_bytes() == (Path("two") / file.name).read_bytes()


def test_no_base_is_refused(capsys: Capture) -> None:
    assert run("nowhere", "-o", "out") == 1
    assert "no base model at nowhere" in capsys.readouterr().err
