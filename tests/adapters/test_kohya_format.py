from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pamctl.adapters import Adapter, LoraFactors, Provenance, open_adapter, save_adapter, write_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING
from pamctl.adapters.formats.kohya import WEIGHTS_NAME
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.module_names import canonical_id
from pamctl.refusal import Refusal
from tests.adapter_cases import (
    CONV_IDS,
    DTYPES,
    LINEAR_IDS,
    adapters,
    delta,
    random_adapter,
    random_factors,
    same_deltas,
)

TO_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TO_Q_ID = TO_Q.removeprefix("lora_unet_")
DOWN = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], np.float32)
UP = np.array([[1.0, 0.0], [2.0, 1.0]], np.float32)
PRODUCT = np.array([[1.0, 2.0, 3.0], [2.0, 5.0, 5.0]])  # UP @ DOWN, by hand

PIPELINE_IDS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.1.attentions.2.proj_in",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
    "visual.blocks.0.attn.qkv",
    "transformer.h.0.attn.c_attn",
)


def pair(module: str = TO_Q, down: Any = DOWN, up: Any = UP, **parts: Any) -> dict[str, Any]:
    """A module's tensors by name; the parts are `alpha`, or others with `_` for `.`."""
    named = {f"{module}.{part.replace('__', '.')}": np.asarray(value) for part, value in parts.items()}
    return {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up, **named}


def opened(folder: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Adapter:
    save_file(tensors, folder / "a.safetensors", metadata)
    return open_adapter(folder / "a.safetensors")


def only(adapter: Adapter) -> LoraFactors:
    (factors,) = adapter.modules.values()
    return factors


def flattened(module: str) -> str:
    """The id that a kohya file gives back for one that was written."""
    component, _, path = module.partition(".")
    kept = ("language_model", "vision_tower", "multi_modal_projector", "visual")
    if component in kept or component.startswith("text_encoder"):
        return f"{component}.{path.replace('.', '_')}"
    return module.replace(".", "_")


@pytest.mark.parametrize(
    ("alpha", "scale"),
    [
        (1.0, 0.5),
        (2.0, 1.0),
        (4.0, 2.0),
        (0.5, 0.25),
        (-2.0, -1.0),
        (0.0, 1.0),
        (None, 1.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_delta_is_alpha_by_rank_of_the_product(
    alpha: float | None, scale: float, dtype: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    parts = {} if alpha is None else {"alpha": np.full(shape, alpha, dtype)}
    adapter = opened(tmp_path, pair(**parts))
    assert list(adapter.shapes) == [TO_Q_ID]
    np.testing.assert_array_equal(delta(only(adapter)), scale * PRODUCT)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.int8, np.uint8])
def test_an_alpha_may_be_an_integer_as_torch_tensor_makes_it(dtype: Any, tmp_path: Path) -> None:
    adapter = opened(tmp_path, pair(alpha=np.array(4, dtype)))
    np.testing.assert_array_equal(delta(only(adapter)), 2 * PRODUCT)


@pytest.mark.parametrize(
    "alpha",
    [
        np.array(np.nan, np.float32),
        np.array(-np.inf, np.float32),
        np.array([1.0, 2.0], np.float32),
        np.zeros((0,), np.float32),
        np.zeros((2, 3), np.float32),
        np.array(True),
        np.array(1e300),
        np.array(1e-300),
    ],
    ids=str,
)
def test_an_alpha_that_is_no_usable_number_is_refused(alpha: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=f"{TO_Q}.alpha") as refusal:
        opened(tmp_path, pair(alpha=alpha))
    assert refusal.value.way_on


def test_a_missing_alpha_is_noted(tmp_path: Path) -> None:
    adapter = opened(tmp_path, {**pair(), **pair("lora_unet_mid_block_a", alpha=np.float32(1))})
    assert adapter.origin
    assert adapter.origin.format == "kohya"
    (note,) = adapter.origin.notes
    assert note.startswith("1 of 2 modules")


def test_factors_of_two_dtypes_are_read(tmp_path: Path) -> None:
    tensors = pair(down=DOWN.astype(np.float16), up=UP.astype(ml_dtypes.bfloat16), alpha=np.float16(2))
    adapter = opened(tmp_path, tensors)
    assert adapter.dtype == "F32"
    np.testing.assert_array_equal(delta(only(adapter)), PRODUCT)


def test_a_convolution_and_one_of_kernel_1(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    down = rng.standard_normal((2, 3, 3, 1)).astype(np.float32)
    adapter = opened(
        tmp_path,
        {
            **pair("lora_unet_conv_in", down, UP[..., None, None], alpha=np.float32(1)),
            **pair("lora_unet_proj_in", DOWN[..., None, None], UP[..., None, None]),
        },
    )
    conv, flat = adapter.modules["conv_in"], adapter.modules["proj_in"]
    assert (conv.layer.kernel, flat.layer.kernel) == ((3, 1), (1, 1))
    kernel = 0.5 * np.einsum("or,rihw->oihw", UP, down.astype(np.float64))
    np.testing.assert_allclose(delta(conv).reshape(2, 3, 3, 1), kernel, rtol=1e-12)
    np.testing.assert_array_equal(delta(flat), PRODUCT)


def test_a_tucker_core_stands_between_the_factors(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mid = rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
    adapter = opened(
        tmp_path,
        pair(
            "lora_unet_c",
            DOWN[..., None, None],
            UP[..., None, None],
            lora_mid__weight=mid,
            alpha=np.float32(4),
        ),
    )
    # LyCORIS: sum over p and q of up[o, p] mid[p, q] down[q, i]
    expected = np.zeros((2, 3, 3, 3))
    for p in range(2):
        for q in range(2):
            expected += 2 * np.multiply.outer(
                np.multiply.outer(UP[:, p], DOWN[q]), mid[p, q].astype(np.float64)
            )
    assert adapter.shapes["c"].layer.kernel == (3, 3)
    np.testing.assert_allclose(delta(only(adapter)).reshape(2, 3, 3, 3), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("lora_unet_mid_block_x", "mid_block_x"),
        ("lora_transformer_transformer_blocks_0_attn_to_q", "transformer_blocks_0_attn_to_q"),
        ("lycoris_transformer_blocks_0_attn_to_q", "transformer_blocks_0_attn_to_q"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te_encoder_layers_0_mlp_fc1", "text_encoder.text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te2_text_projection", "text_encoder_2.text_projection"),
        (
            "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
            "text_encoder_3.encoder_block_0_layer_0_SelfAttention_q",
        ),
        ("lora_model_layers_0_mlp_up_proj", "model_layers_0_mlp_up_proj"),
        ("lora_transformer_h_0_attn_c_attn", "transformer_h_0_attn_c_attn"),
        ("lora_lm_head", "lm_head"),
    ],
)
def test_prefixes_name_the_component(name: str, id: str, tmp_path: Path) -> None:
    assert list(opened(tmp_path, pair(name)).shapes) == [id]


@pytest.mark.parametrize(
    "path",
    [
        *(f"{text}.layers.0.self_attn.q_proj" for text in ("language_model.model", "model.language_model")),
        "language_model.lm_head",
        "lm_head",
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
        "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
        "model.vision_tower.encoder.layers.0.mlp.fc1",
        "vision_tower.vision_model.embeddings.patch_embedding",
        "multi_modal_projector.linear",
        "model.multi_modal_projector.linear_1",
        "model.visual.blocks.0.attn.qkv",
        "visual.merger.mlp.0",
        "model.layers.0.self_attn.q_proj",
    ],
)
def test_every_generation_flattens_to_the_flattened_canonical_id(path: str, tmp_path: Path) -> None:
    (module,) = opened(tmp_path, pair("lora_" + path.replace(".", "_"))).shapes
    assert module.replace(".", "_") == canonical_id(path).replace(".", "_")


def test_beside_vision_modules_model_layers_is_the_language_model(tmp_path: Path) -> None:
    adapter = opened(
        tmp_path, {**pair("lora_visual_blocks_0_attn_qkv"), **pair("lora_model_layers_0_mlp_up_proj")}
    )
    assert list(adapter.shapes) == ["language_model.layers_0_mlp_up_proj", "visual.blocks_0_attn_qkv"]


def test_the_order_of_the_tensors_changes_nothing(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {}
    rng = np.random.default_rng(3)
    for i, rank in enumerate((4, 8, 32, 4)):
        a, b = rng.standard_normal((rank, 5)), rng.standard_normal((6, rank))
        tensors |= pair(f"lora_unet_mid_block_{i}", a, b, alpha=np.float32(i + 1))
    found = set()
    for seed in range(5):
        names = np.random.default_rng(seed).permutation(list(tensors))
        folder = tmp_path / str(seed)
        folder.mkdir()
        found.add(opened(folder, {str(name): tensors[name] for name in names}).fingerprint)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("hada_t1", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("oft_blocks", "OFT"),
        ("oft_diag", "OFT"),
        ("on_input", "IA"),
        ("w_norm", "norm"),
        ("b_norm", "norm"),
        ("diff", "full difference"),
        ("diff_b", "bias"),
        ("scalar", "lora_down"),
    ],
)
def test_what_is_no_lora_is_refused_by_name_with_the_way_on(part: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=f"{TO_Q}.{part}") as refusal:
        opened(tmp_path, {**pair(), f"{TO_Q}.{part}": np.ones((2, 2), np.float32)})
    assert kind in refusal.value.way_on


def test_an_embedding_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"bundle_emb\.x\.string_to_param"):
        opened(tmp_path, {**pair(), "bundle_emb.x.string_to_param.*": np.ones((2, 2), np.float32)})


@pytest.mark.parametrize("missing", ["lora_up.weight", "lora_down.weight"])
def test_a_factor_alone_is_refused(missing: str, tmp_path: Path) -> None:
    tensors = pair(alpha=np.float32(1))
    del tensors[f"{TO_Q}.{missing}"]
    with pytest.raises(Refusal, match=f"of {TO_Q} there is only"):
        opened(tmp_path, tensors)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_vision_tower_encoder_layers_0_mlp_fc1", "lora_model_vision_tower_encoder_layers_0_mlp_fc1"),
        ("lora_unet_mid_block_x", "lycoris_mid_block_x"),
    ],
)
def test_two_names_of_one_module_are_refused(one: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="are one module"):
        opened(tmp_path, {**pair(one), **pair(other)})


@pytest.mark.parametrize(
    "module",
    [
        "lora_unet_" + "x" * 300,
        "lora_unet_../../etc/passwd",
        "lora_",
        "lora_unet_ü",
        "lora_unet_a b",
        "lora_te_",
    ],
)
def test_hostile_names_are_read_or_refused_and_never_a_path(module: str, tmp_path: Path) -> None:
    try:
        adapter = opened(tmp_path, pair(module))
    except Refusal:
        return
    np.testing.assert_array_equal(delta(only(adapter)), PRODUCT)


def test_the_base_is_named_by_the_metadata(tmp_path: Path) -> None:
    assert (
        opened(tmp_path, pair(), {"ss_base_model_version": "sdxl_base_v1-0"}).base_model == "sdxl_base_v1-0"
    )
    metadata = {"ss_base_model_version": "None", "modelspec.architecture": "stable-diffusion-v1"}
    assert opened(tmp_path, pair(), metadata).base_model == "stable-diffusion-v1"
    assert opened(tmp_path, pair()).base_model is None


@settings(max_examples=60)
@given(
    adapter=adapters(linear=(*LINEAR_IDS, *PIPELINE_IDS), conv=CONV_IDS),
    dtype=st.sampled_from(DTYPES),
    compact=st.booleans(),
    single=st.booleans(),
)
def test_what_is_written_is_read_with_the_same_deltas(
    tmp_path_factory: Any, adapter: Adapter, dtype: str, compact: bool, single: bool
) -> None:
    folder = tmp_path_factory.mktemp("written")
    path = folder / ("a.safetensors" if single else "a")
    write_adapter(adapter, path, "kohya", WriteOptions(dtype, compact))
    back = open_adapter(path)
    assert back.origin
    assert back.origin.format == "kohya"
    assert not back.origin.notes
    same_deltas(back, adapter, dtype, renamed=flattened)
    if dtype == "F32":
        assert back.fingerprint == adapter.fingerprint
    ranks = {flattened(module): shape.rank for module, shape in adapter.shapes.items()}
    expected = ranks if compact else dict.fromkeys(ranks, max(ranks.values()))
    assert {module: shape.rank for module, shape in back.shapes.items()} == expected


def test_alpha_is_the_rank_in_every_module_and_the_metadata_say_so(tmp_path: Path) -> None:
    adapter = Adapter(
        {"mid_block.a": random_factors(0, 3, 4, 2, 0.5), "mid_block.b": random_factors(1, 3, 4, 4)}
    )
    write_adapter(adapter, tmp_path / "a", "kohya", WriteOptions(dtype="BF16"))
    back = open_adapter(tmp_path / "a")
    assert back.origin
    said = {"ss_network_dim": "4", "ss_network_alpha": "4", "ss_network_module": "networks.lora"}
    assert said.items() <= back.origin.settings.items()
    tensors = load_file(tmp_path / "a" / WEIGHTS_NAME)
    alphas = {name: value for name, value in tensors.items() if name.endswith(".alpha")}
    assert set(alphas) == {"lora_unet_mid_block_a.alpha", "lora_unet_mid_block_b.alpha"}
    assert all(alpha.dtype == np.float32 and alpha.shape == () and alpha == 4 for alpha in alphas.values())
    write_adapter(adapter, tmp_path / "c", "kohya", WriteOptions(compact=True))
    compact = open_adapter(tmp_path / "c")
    assert compact.origin
    assert compact.origin.settings["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("model.layers.0.mlp.up_proj", "lora_model_layers_0_mlp_up_proj"),
        ("language_model.layers.0.mlp.up_proj", "lora_language_model_layers_0_mlp_up_proj"),
        ("vision_tower.encoder.layers.0.mlp.fc1", "lora_vision_tower_encoder_layers_0_mlp_fc1"),
        ("multi_modal_projector.linear", "lora_multi_modal_projector_linear"),
        ("lm_head", "lora_lm_head"),
        (
            "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
            "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        ),
    ],
)
def test_the_component_is_written_as_the_prefix(module: str, name: str, tmp_path: Path) -> None:
    write_adapter(Adapter({module: random_factors(0, 3, 4)}), tmp_path / "a", "kohya")
    assert {key.partition(".")[0] for key in load_file(tmp_path / "a" / WEIGHTS_NAME)} == {name}
    assert list(open_adapter(tmp_path / "a").shapes) == [flattened(module)]


def test_the_first_text_encoder_has_a_number_where_there_is_a_second(tmp_path: Path) -> None:
    layer = "text_model.encoder.layers.0.mlp.fc1"
    one = {f"text_encoder.{layer}": random_factors(0, 3, 4)}
    two = one | {f"text_encoder_2.{layer}": random_factors(1, 3, 4)}
    for name, modules, prefixes in (("one", one, {"lora_te"}), ("two", two, {"lora_te1", "lora_te2"})):
        write_adapter(Adapter(modules), tmp_path / name, "kohya")
        written = load_file(tmp_path / name / WEIGHTS_NAME)
        assert {key.partition("_text_model")[0] for key in written} == prefixes


def test_equal_adapters_give_equal_bytes(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a",))
    turned = Adapter(
        dict(sorted(adapter.modules.items(), reverse=True)), adapter.provenance, adapter.base_model
    )
    for name, one in (("a", adapter), ("b", turned)):
        write_adapter(one, tmp_path / f"{name}.safetensors", "kohya")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_single_file_carries_the_record_and_a_folder_has_it_beside(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a", "b"))
    write_adapter(adapter, tmp_path / "a.safetensors", "kohya")
    write_adapter(adapter, tmp_path / "a", "kohya")
    for written in (tmp_path / "a.safetensors", tmp_path / "a"):
        back = open_adapter(written)
        assert back.provenance
        assert back.provenance.tasks == ("a", "b")
        assert back.fingerprint == adapter.fingerprint


def test_an_adapter_read_from_elsewhere_and_written_alone_does_not_carry_its_old_fingerprint(
    tmp_path: Path,
) -> None:
    factors = random_factors(0, 3, 4)
    stale = Provenance("trained", "trained", fingerprint="0" * 64)
    write_adapter(Adapter({"mid_block.a": factors}, stale), tmp_path / "a.safetensors", "kohya")
    assert (
        open_adapter(tmp_path / "a.safetensors").fingerprint == Adapter({"mid_block.a": factors}).fingerprint
    )


@pytest.mark.parametrize("format", ["peft", "diffusers"])
def test_a_file_of_a_known_model_is_written_with_dotted_paths(format: str, tmp_path: Path) -> None:
    ids = (*PIPELINE_IDS[:4], "mid_block.resnets.0.conv1", "language_model.layers.0.self_attn.q_proj")
    adapter = Adapter({id: random_factors(i, 3, 4) for i, id in enumerate(ids)})
    write_adapter(adapter, tmp_path / "a.safetensors", "kohya")
    write_adapter(open_adapter(tmp_path / "a.safetensors"), tmp_path / "b", format)
    same_deltas(open_adapter(tmp_path / "b"), adapter)
    assert open_adapter(tmp_path / "b").fingerprint == adapter.fingerprint


def test_ids_that_flatten_to_one_name_are_refused(tmp_path: Path) -> None:
    adapter = Adapter({"blocks.0_a": random_factors(0, 3, 4), "blocks.0.a": random_factors(1, 3, 4)})
    with pytest.raises(Refusal, match=r"lora_unet_blocks_0_a.*kohya") as refusal:
        write_adapter(adapter, tmp_path / "a", "kohya")
    assert "peft" in refusal.value.way_on


def test_what_has_no_place_is_refused(tmp_path: Path) -> None:
    a, b = np.ones((1, 3), np.float32), np.ones((2, 1), np.float32)
    embedding = Adapter({"embed_tokens": LoraFactors(a, b, layer=EMBEDDING)})
    extra = Extra("module", (2,), "F32", lambda: np.ones(2, np.float32))
    for adapter in (embedding, Adapter({"x": LoraFactors(a, b)}, extras={"lm_head.weight": extra})):
        with pytest.raises(Refusal, match="kohya"):
            save_adapter(adapter, tmp_path, "kohya")
    assert not list(tmp_path.iterdir())
