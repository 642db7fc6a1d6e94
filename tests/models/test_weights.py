"""Checkpoints in every spelling, whole, sharded and broken."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.models.weights import canonical_name, read_weights, write_weights
from pamctl.refusal import Refusal

FC1 = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
NORM = "language_model.model.norm.weight"


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, config, tensors, value):
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
