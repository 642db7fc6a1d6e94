"""Checkpoints in every spelling, whole, sharded and broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.models.leaves import canonical_name, hub_name, model_leaves
from pamctl.models.weights import read_weights, write_weights
from pamctl.refusal import Refusal

FC1 = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
NORM = "language_model.model.norm.weight"
ON_EIGHT_DEVICES = """
import json, os, sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.weights import read_weights

folder, dtype = Path(sys.argv[1]), np.dtype(sys.argv[2])
config, read = PaliGemmaConfig.from_file(folder), []
preadv = os.preadv
os.preadv = lambda *given: read.append(preadv(*given)) or read[-1]
mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
seen = []

def sharding(shape, dtype, *, stacked):
    axes = [axis for axis, size in enumerate(shape) if size % 8 == 0 and axis >= stacked]
    spread = P(*[None] * axes[-1], "fsdp") if axes else P()
    seen.append((stacked, len(axes[-1:]) and axes[-1] - stacked))
    return NamedSharding(mesh, spread)

spread, one = read_weights(folder, config, dtype, sharding)
once = sum(read)
whole, other = read_weights(folder, config, dtype)
assert one == other
for a, b in zip(jax.tree.leaves(spread), jax.tree.leaves(whole), strict=True):
    assert len(a.sharding.device_set) == 8 and len(b.sharding.device_set) == 1
    assert a.dtype == b.dtype == dtype
    np.testing.assert_array_equal(a, b)
shards = {s.data.shape for s in spread["language_model"]["embed_tokens"]["weight"].addressable_shards}
print(json.dumps({"read": once, "shards": sorted(shards), "seen": sorted(set(seen))}))
"""


def equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, one, other))


def spelt(tensors: dict[str, np.ndarray], generation: str) -> dict[str, np.ndarray]:
    """The Hub's file as another release of transformers writes it."""
    if generation == "hub with a head":
        rows = tensors["language_model.model.embed_tokens.weight"]
        return {**tensors, "language_model.lm_head.weight": rows}
    if generation == "5.x from a config":
        return {name.replace(".vision_model.", "."): tensor for name, tensor in tensors.items()}
    inner = ".vision_model." if generation == "5.x modules" else "\0"
    renamed = {
        "model." + name.replace(inner, ".").replace("language_model.model.", "language_model."): tensor
        for name, tensor in tensors.items()
    }
    return {**renamed, "lm_head.weight": tensors["language_model.model.embed_tokens.weight"]}


@pytest.fixture
def tensors(checkpoint) -> dict[str, np.ndarray]:
    return load_file(checkpoint / "model.safetensors")


def test_written_weights_are_read_back_bit_for_bit(checkpoint, config, params):
    assert equal(read_weights(checkpoint, config)[0], params)


def test_the_file_has_the_hubs_names_and_layouts(tensors, params):
    fc1 = params["vision_tower"]["encoder"]["layers"]["mlp"]["fc1"]["weight"][0]
    np.testing.assert_array_equal(tensors[FC1], fc1)
    patch = tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"]
    ours = params["vision_tower"]["embeddings"]["patch_embedding"]["weight"]
    np.testing.assert_array_equal(patch, ours.reshape(12, 3, 4, 4))
    assert tensors[NORM].shape == (16,)


@pytest.mark.parametrize(
    "generation", ["hub with a head", "5.x from a config", "4.57 modules", "5.x modules"]
)
def test_every_spelling_is_the_same_model(tmp_path, checkpoint, config, params, tensors, generation):
    renamed = spelt(tensors, generation)
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "model.safetensors")
    read, fingerprint = read_weights(tmp_path, config)
    assert equal(read, params)
    assert fingerprint == read_weights(checkpoint, config)[1]


def test_shards_are_the_same_model(tmp_path, checkpoint, config, params, tensors):
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    read, fingerprint = read_weights(tmp_path, config)
    assert equal(read, params)
    assert fingerprint == read_weights(checkpoint, config)[1]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(Refusal, match=r"lacks model-2\.safetensors"):
        read_weights(tmp_path, config)


def test_bf16_at_rest_and_in_memory(tmp_path, config, params):
    write_weights(tmp_path, params, config, ml_dtypes.bfloat16)
    rounded = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params)
    assert equal(read_weights(tmp_path, config, ml_dtypes.bfloat16)[0], rounded)
    assert equal(
        read_weights(tmp_path, config)[0], jax.tree.map(lambda leaf: leaf.astype(np.float32), rounded)
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_sharded_load_is_an_unsharded_one_and_reads_each_byte_once(checkpoint, tensors, dtype):
    ran = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES, str(checkpoint), dtype],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["read"] == sum(tensor.nbytes for tensor in tensors.values())
    assert told["shards"] == [[40, 2]]
    assert [True, 0] in told["seen"]  # rows of a layer, and columns:
    assert [True, 1] in told["seen"]


@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_the_size_of_a_block_changes_nothing(monkeypatch, checkpoint, config, params, block):
    expected = read_weights(checkpoint, config, ml_dtypes.bfloat16)
    monkeypatch.setattr("pamctl.models.stored._BLOCK", block)
    assert equal(read_weights(checkpoint, config)[0], params)
    read, fingerprint = read_weights(checkpoint, config, ml_dtypes.bfloat16)
    assert equal(read, expected[0])
    assert fingerprint == expected[1] == read_weights(checkpoint, config)[1]


def test_the_fingerprint_is_of_every_number_and_name(tmp_path, checkpoint, config, tensors):
    whole = read_weights(checkpoint, config)[1]
    spoilt = {**tensors, NORM: tensors[NORM] + np.float32(1e-3)}
    q, k = (f"language_model.model.layers.0.self_attn.{name}_proj.weight" for name in "vk")
    for changed in (spoilt, {**tensors, q: tensors[k], k: tensors[q]}):
        save_file(changed, tmp_path / "model.safetensors")
        assert read_weights(tmp_path, config)[1] != whole


def test_parameters_on_a_cpu_are_the_memory_that_was_read_into(monkeypatch, checkpoint, config):
    made = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda *given: made.append(empty(*given)) or made[-1])
    leaves = jax.tree.leaves(read_weights(checkpoint, config)[0])
    places = [(memory.ctypes.data, memory.nbytes) for memory in made if memory.dtype == np.uint8]
    for leaf in leaves:
        pointer = leaf.unsafe_buffer_pointer()
        assert any(start <= pointer < start + size for start, size in places)


def test_numbers_beyond_the_dtype_in_memory_are_refused(tmp_path, config, tensors):
    tensors[FC1][3, 2] = 1e5
    save_file(tensors, tmp_path / "model.safetensors")
    read_weights(tmp_path, config, ml_dtypes.bfloat16)
    with pytest.raises(Refusal, match=f"{FC1} goes beyond 65504, the largest F16"):
        read_weights(tmp_path, config, np.float16)


def test_a_file_that_changes_after_it_was_opened_is_refused(monkeypatch, tmp_path, config, tensors):
    from pamctl.models import weights

    save_file(tensors, tmp_path / "model.safetensors")
    stored = weights.stored_weights(tmp_path, config)
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "stored_weights", lambda *_: stored)
    with pytest.raises(Refusal, match="has changed since it was opened"):
        read_weights(tmp_path, config)


def test_the_hubs_names_are_read_as_ours(config):
    names = [name for leaf in model_leaves(config) for name in leaf.names()]
    assert [canonical_name(hub_name(name)) for name in names] == names


def test_the_same_weights_give_the_same_bytes(tmp_path, checkpoint, config, params):
    write_weights(tmp_path, params, config)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / file).read_bytes() == (checkpoint / file).read_bytes()


def test_all_faults_are_listed_together(tmp_path, config, tensors):
    del tensors[NORM]
    tensors[FC1] = tensors[FC1][:, :-1].copy()
    tensors["vision_tower.vision_model.head.probe"] = np.zeros(3, np.float32)
    tensors["multi_modal_projector.linear.bias"] = np.zeros(16, np.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Refusal) as refused:
        read_weights(tmp_path, config)
    for fault in (
        "missing language_model.norm.weight",
        f"{FC1} has shape (20, 11), config.json means (20, 12)",
        "unexpected vision_tower.vision_model.head.probe",
        "multi_modal_projector.linear.bias is I8",
    ):
        assert fault in refused.value.what


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, config, tensors, value, dtype):
    largest = ml_dtypes.finfo(dtype).max
    tensors = {name: np.full_like(tensor, largest, dtype) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    read_weights(tmp_path, config, dtype)
    tensors[FC1][3, 2] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Refusal, match=f"{FC1} holds NaN or Inf"):
        read_weights(tmp_path, config)


def test_the_same_tensor_twice_is_refused(tmp_path, config, tensors):
    save_file({**tensors, f"model.{NORM}": tensors[NORM]}, tmp_path / "model.safetensors")
    with pytest.raises(Refusal, match="are the same tensor"):
        read_weights(tmp_path, config)


def test_no_or_broken_files_are_refused(tmp_path, checkpoint, config):
    with pytest.raises(Refusal, match=r"no model\.safetensors"):
        read_weights(tmp_path, config)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(Refusal, match="is not an index of shards"):
        read_weights(tmp_path, config)
    whole = (checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refusal, match="its tensors end at byte"):
        read_weights(tmp_path, config)


def test_only_the_tied_head_is_left_out():
    assert canonical_name("lm_head.weight") is None
    assert canonical_name("language_model.lm_head.weight") is None
    assert canonical_name("vision_tower.lm_head.weight") == "vision_tower.lm_head.weight"
