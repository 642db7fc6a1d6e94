"""big_vision's checkpoints are the models that they were made from, of either generation and any kind."""

import shutil
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pamctl.models.base import load_base
from pamctl.models.big_vision_config import inferred_config
from pamctl.models.config import PaliGemmaConfig, TextConfig
from pamctl.models.leaves import hub_name
from pamctl.models.npz_file import NpzArray
from pamctl.models.paligemma import forward_logits, image_features
from pamctl.models.weights import read_weights
from pamctl.refusal import Refusal
from tests.models.big_vision_cases import CONFIGS, ROWS, big_vision_arrays, random_checkpoint, write_npz
from tests.models.conftest import make_tokenizer

QUERY = "llm/layers/attn/q_einsum/w"


@pytest.fixture
def config() -> PaliGemmaConfig:
    return CONFIGS[1]


@pytest.fixture
def place(tmp_path, config):
    """A folder with a tokenizer and small.npz."""
    folder = tmp_path / "jax"
    folder.mkdir()
    make_tokenizer().save(str(folder / "tokenizer.json"))
    write_npz(folder / "small.npz", big_vision_arrays(random_checkpoint(config), config))
    return folder


def hugging_face(folder, tensors, config):
    folder.mkdir()
    save_file({hub_name(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return read_weights(folder, config, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("prefix", "compressed"), [("params/", False), ("", True)])
@pytest.mark.parametrize("generation", [1, 2])
def test_it_is_the_model_in_hugging_face_layout(tmp_path, place, generation, prefix, compressed, dtype):
    config = CONFIGS[generation]
    tensors = random_checkpoint(config, dtype)
    write_npz(place / "small.npz", big_vision_arrays(tensors, config), prefix, compressed)
    base = load_base(str(place / "small.npz"), "f32")
    assert base.config == config
    params, _ = hugging_face(tmp_path / "hugging-face", tensors, config)
    jax.tree.map(np.testing.assert_array_equal, base.parameters, params)
    assert not base.parameters["language_model"]["embed_tokens"]["weight"][ROWS:].any()


@pytest.mark.parametrize("generation", [1, 2])
def test_it_has_the_same_logits(tmp_path, place, batch, pixels, generation):
    config = CONFIGS[generation]
    tensors = random_checkpoint(config)
    write_npz(place / "small.npz", big_vision_arrays(tensors, config))
    params, _ = hugging_face(tmp_path / "hugging-face", tensors, config)
    found, expected = (
        forward_logits(config, of, {}, 1.0, image_features(config, of, {}, 1.0, pixels), batch)
        for of in (load_base(str(place), "f32").parameters, params)
    )
    np.testing.assert_array_equal(found, expected)


def test_it_has_the_fingerprint_of_the_same_model(tmp_path, place, config):
    base = load_base(str(place))
    other = tmp_path / "other"
    hugging_face(other, random_checkpoint(config), config)
    (other / "config.json").write_text(config.to_json())
    shutil.copyfile(place / "tokenizer.json", other / "tokenizer.json")
    (other / "preprocessor_config.json").write_text(base.images.to_json())
    assert load_base(str(other)).fingerprint == base.fingerprint


def test_a_folder_with_one_is_the_file_and_what_is_beside_it_counts(place):
    base = load_base(str(place))
    assert (base.name, base.dtype, base.images.size) == ("jax", "bf16", 8)
    assert load_base(str(place / "small.npz")).name == "small"
    shutil.copyfile(place / "small.npz", place / "other.npz")
    with pytest.raises(Refusal, match=r"holds 2 \.npz files"):
        load_base(str(place))
    (place / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    with pytest.raises(Refusal, match=r"image_size 8, preprocessor_config\.json has 16"):
        load_base(str(place / "small.npz"))
    (place / "tokenizer.json").unlink()
    with pytest.raises(Refusal, match=r"no tokenizer\.json beside it") as refused:
        load_base(str(place / "small.npz"))
    assert "copy it there from the model's repository on the Hub" in refused.value.way_on


def released(width, hidden, layers, heads, key_heads, head_dim, generation) -> dict[str, NpzArray]:
    """Shapes of a released checkpoint at 224 pixels."""
    block = "img/Transformer/encoderblock"
    shapes = {
        "img/embedding/kernel": (14, 14, 3, 1152),
        "img/pos_embedding": (1, 256, 1152),
        f"{block}/MlpBlock_0/Dense_0/kernel": (27, 1152, 4304),
        f"{block}/MultiHeadDotProductAttention_0/query/kernel": (27, 1152, 16, 72),
        "llm/embedder/input_embedding": (257152, width),
        QUERY: (layers, heads, width, head_dim),
        "llm/layers/attn/kv_einsum/w": (layers, 2, key_heads, width, head_dim),
        "llm/layers/mlp/gating_einsum": (layers, 2, width, hidden),
    }
    if generation == 2:
        shapes["llm/layers/post_attention_norm/scale"] = (layers, width)
    return {name: NpzArray(None, name, "F32", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("sizes", "scalar"),
    [
        ((2048, 16384, 18, 8, 1, 256, 1), None),
        ((2304, 9216, 26, 8, 4, 256, 2), 256),
        ((3584, 14336, 42, 16, 8, 256, 2), 256),
        ((4608, 36864, 46, 32, 16, 128, 2), 144),
    ],
)
def test_the_released_models_are_known_by_their_shapes(sizes, scalar):
    width, hidden, layers, heads, key_heads, head_dim, generation = sizes
    config = inferred_config(released(*sizes), "released.npz")
    assert config.text.generation == generation
    assert config.image_token_index == 257152
    assert config.vision.image_size == 224
    window = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}
    second = {"generation": 2, "query_pre_attn_scalar": scalar, **window} if generation == 2 else {}
    assert config.text == TextConfig(width, hidden, layers, heads, key_heads, 257216, head_dim, **second)


def test_all_faults_are_listed_together(place, config):
    arrays = big_vision_arrays(random_checkpoint(config), config)
    del arrays["llm/final_norm/scale"]
    arrays["llm/layers/mlp/linear"] = arrays["llm/layers/mlp/linear"][:, :-1]
    arrays["opt/count"] = np.zeros(3, np.float32)
    write_npz(place / "small.npz", arrays)
    with pytest.raises(Refusal) as refused:
        load_base(str(place))
    for fault in (
        "missing llm/final_norm/scale",
        "llm/layers/mlp/linear has shape (3, 23, 16), the others mean (3, 24, 16)",
        "unexpected opt/count",
    ):
        assert fault in refused.value.what


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda array: np.array([{"os": "system"}], object), "is pickled"),
        (lambda array: array.astype(np.float64), "is <f8"),
        (lambda array: array.astype(">f4"), "is >f4"),
        (lambda array: np.asfortranarray(array.reshape(12, -1)), "in column order"),
        (lambda array: array[0], "which should be"),
        (lambda array: np.where(array == array.flat[-1], np.nan, array), "holds NaN or Inf"),
    ],
)
def test_an_array_that_cannot_be_used_is_named(place, config, spoil, told):
    arrays = big_vision_arrays(random_checkpoint(config), config)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    np.savez(place / "small.npz", **{**arrays, QUERY: spoil(arrays[QUERY])})
    with pytest.raises(Refusal, match=told) as refused:
        load_base(str(place))
    assert str(place / "small.npz") in refused.value.what
    assert QUERY in refused.value.what


def test_an_embedding_that_is_not_square_or_missing_is_refused(place, config):
    arrays = big_vision_arrays(random_checkpoint(config), config)
    write_npz(place / "small.npz", {**arrays, "img/pos_embedding": arrays["img/pos_embedding"][:, :3]})
    with pytest.raises(Refusal, match="has 3 places, which are no square"):
        load_base(str(place))
    del arrays["img/pos_embedding"]
    write_npz(place / "small.npz", arrays)
    with pytest.raises(Refusal, match=r"has no img/pos_embedding"):
        load_base(str(place))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_refused(place, config, compressed):
    file = place / "small.npz"
    write_npz(file, big_vision_arrays(random_checkpoint(config), config), compressed=compressed)
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as zipped:
        member = zipped.getinfo("params/llm/embedder/input_embedding.npy")
        with zipped.open(member) as stream:
            stream.read(1)
        start = member.header_offset + 30 + len(member.filename) + 400
    whole[start] ^= 1
    file.write_bytes(whole)
    with pytest.raises(Refusal, match="cannot be read"):
        load_base(str(place))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refusal, match="cannot be read"):
        load_base(str(place))
