"""What a reference to a base model stands for."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pamctl.hub import HubReference, Snapshot
from pamctl.models.base import LoraDefaults, load_base
from pamctl.models.images import ImageProcessor
from pamctl.refusal import Refusal, UsageRefusal
from tests.hub_server import serve


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "spoilt"))


def test_a_folder_is_loaded_whole(checkpoint, config):
    base = load_base(str(checkpoint))
    assert base.config == config
    assert base.name == "small"
    assert len(base.fingerprint) == 64
    assert base.images.size == 8
    assert base.lora_defaults == LoraDefaults(rank=32, alpha=32.0)


def dtypes(base) -> set:
    return {leaf.dtype for leaf in jax.tree.leaves(base.parameters)}


@pytest.mark.parametrize(
    ("asked", "name", "expected"),
    [
        (None, "bf16", jnp.bfloat16),
        ("f32", "f32", jnp.float32),
        ("f16", "f16", jnp.float16),
        (jnp.bfloat16, "bf16", jnp.bfloat16),
        (jnp.dtype("float32"), "f32", jnp.float32),
    ],
)
def test_parameters_have_the_dtype_asked_for(checkpoint, asked, name, expected):
    base = load_base(str(checkpoint), asked)
    assert base.dtype == name
    assert dtypes(base) == {jnp.dtype(expected)}
    assert base.fingerprint == load_base(str(checkpoint)).fingerprint


def test_without_one_the_base_says_it(folder):
    said = {"rank": 4, "alpha": 8, "targets": ".*"}
    (folder / "lora.json").write_text(json.dumps({**said, "dtype": "f32"}))
    base = load_base(str(folder))
    assert base.dtype == "f32"
    assert dtypes(base) == {jnp.dtype("float32")}
    assert load_base(str(folder), "bf16").dtype == "bf16"
    assert load_base().dtype == "f32"
    (folder / "lora.json").write_text(json.dumps({**said, "dtype": "int8"}))
    with pytest.raises(Refusal, match="dtype 'int8'"):
        load_base(str(folder))


@pytest.mark.parametrize("dtype", ["int8", "float32", jnp.int8])
def test_other_dtypes_are_refused(checkpoint, dtype):
    with pytest.raises(UsageRefusal, match="cannot be held as"):
        load_base(str(checkpoint), dtype)


def test_a_base_lies_on_the_devices_that_it_names(checkpoint):
    base = load_base(str(checkpoint))
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(base.parameters)} == {base.devices.mesh}
    with pytest.raises(UsageRefusal, match=f"fsdp 3 does not divide {jax.device_count()} devices"):
        load_base(str(checkpoint), fsdp=3)


def test_lora_json_gives_the_defaults(folder):
    (folder / "lora.json").write_text(json.dumps({"rank": 4, "alpha": 8, "targets": ".*fc1"}))
    assert load_base(str(folder)).lora_defaults == LoraDefaults(4, 8.0, ".*fc1")
    (folder / "lora.json").write_text(json.dumps({"rank": 4}))
    with pytest.raises(Refusal, match="is not rank, alpha and targets"):
        load_base(str(folder))


def test_the_fingerprint_covers_weights_config_and_tokenizer(checkpoint, folder):
    whole = load_base(str(checkpoint)).fingerprint
    assert load_base(str(folder)).fingerprint == whole
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"h"', '"i"'))
    assert load_base(str(folder)).fingerprint != whole


def test_files_of_different_models_are_refused(folder):
    (folder / "preprocessor_config.json").write_text(ImageProcessor(size=16).to_json())
    with pytest.raises(Refusal, match=r"image_size 8, preprocessor_config\.json has 16"):
        load_base(str(folder))
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "eos_token_id": 7}))
    (folder / "preprocessor_config.json").write_text(ImageProcessor(size=8).to_json())
    with pytest.raises(Refusal, match=r"eos_token_id 7, tokenizer\.json has 1"):
        load_base(str(folder))


@pytest.mark.parametrize("reference", ["/no/such/folder", "./nowhere", "a/../b", "nothing"])
def test_nothing_there_is_refused(reference):
    with pytest.raises(Refusal, match="no base model at"):
        load_base(reference)


def test_a_file_is_refused(folder):
    with pytest.raises(Refusal, match="is a file"):
        load_base(str(folder / "config.json"))


@pytest.mark.parametrize("reference", ["hf://org/name@v1", "org/name@v1"])
def test_a_hub_reference_fetches_only_what_is_read(monkeypatch, checkpoint, reference):
    there = [
        *(file.name for file in checkpoint.iterdir()),
        *("model.bin", "README.md", "onnx/config.json", "model.safetensors.index.json"),
    ]

    def fetch(asked: HubReference, wanted: Callable[[Sequence[str]], Sequence[str]]) -> Snapshot:
        assert asked == HubReference("org/name", "v1", "")
        assert sorted(wanted(there)) == [
            *("config.json", "model.safetensors", "model.safetensors.index.json"),
            *("preprocessor_config.json", "tokenizer.json"),
        ]
        return Snapshot("org/name", "c0ffee", checkpoint, tuple(there), ("the Hub cannot be reached",))

    monkeypatch.setattr("pamctl.models.checkpoint.fetch", fetch)
    base = load_base(reference)
    assert base.name == "org/name"
    assert base.notes == ("the Hub cannot be reached",)


def test_a_base_is_fetched_and_is_the_folder_it_was_made_from(checkpoint, tmp_path):
    with serve() as hub:
        files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
        hub.repository("org/base").commit({**files, "pytorch_model.bin": b"", "onnx/config.json": b""})
        ended = subprocess.run(
            [sys.executable, "-c", "from pamctl.models.base import load_base as load\n"
             "print(load('hf://org/base').fingerprint)"],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ended.stdout.strip() == load_base(str(checkpoint)).fingerprint
        assert not hub.asked("HEAD", ".bin") + hub.asked("HEAD", "onnx")


def test_a_file_on_the_hub_is_no_base():
    with pytest.raises(Refusal, match="no base model at"):
        load_base("https://huggingface.co/org/name/blob/main/config.json")
