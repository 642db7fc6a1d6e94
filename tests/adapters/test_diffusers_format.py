import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter, write_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING
from pamctl.adapters.formats.diffusers import SETTINGS_NAME, WEIGHTS_NAME
from pamctl.adapters.formats.written import WriteOptions
from pamctl.conversion import convert
from pamctl.merging import merge
from pamctl.refusal import Refusal
from tests.adapter_cases import DTYPES, adapters, delta, random_adapter, random_factors, same_deltas

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
CLIP_LAYER = "text_model.encoder.layers.0"
UNET = f"unet.{ATTENTION}.to_q"
A = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], np.float32)
B = np.array([[1.0, 0.0], [2.0, 1.0]], np.float32)
PRODUCT = np.array([[1.0, 2.0, 3.0], [2.0, 5.0, 5.0]])  # B @ A, by hand

UNET_IDS = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "mid_block.attentions.0.proj_in", "conv_out")
TRANSFORMER_IDS = (
    "transformer_blocks.0.attn.to_q",
    "single_transformer_blocks.1.proj_mlp",
    "x_embedder",
    "proj_out",
)
PUBLISHED_IDS = ("double_blocks.0.img_attn.qkv", "single_blocks.3.linear1")
TEXT_IDS = (
    f"text_encoder.{CLIP_LAYER}.self_attn.q_proj",
    f"text_encoder.{CLIP_LAYER}.mlp.fc1",
    "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",
    "text_encoder_3.text_projection",
)
CONV_IDS = ("down_blocks.0.resnets.0.conv1", "up_blocks.1.upsamplers.0.conv")


def pair(module: str = UNET, a: Any = A, b: Any = B, style: str = "peft") -> dict[str, Any]:
    ends = {
        "peft": (".lora_A.weight", ".lora_B.weight"),
        "dumped": (".lora_A.default.weight", ".lora_B.default.weight"),
        "dotted": (".lora.down.weight", ".lora.up.weight"),
        "linear": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        "kohya": (".lora_down.weight", ".lora_up.weight"),
        "processor": ("_lora.down.weight", "_lora.up.weight"),
    }[style]
    return {module + ends[0]: a, module + ends[1]: b}


def config(**fields: Any) -> dict[str, str]:
    """The metadata that diffusers writes, of fields named `<component>.<field>` with `__` for the dot."""
    packed = {name.replace("__", "."): value for name, value in fields.items()}
    return {SETTINGS_NAME: json.dumps(packed)}


def opened(folder: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Adapter:
    save_file(
        {name: np.asarray(values) for name, values in tensors.items()}, folder / "a.safetensors", metadata
    )
    return open_adapter(folder / "a.safetensors")


def only(adapter: Adapter) -> LoraFactors:
    (factors,) = adapter.modules.values()
    return factors


@pytest.mark.parametrize(
    ("name", "style", "id"),
    [
        (UNET, "peft", f"{ATTENTION}.to_q"),
        (UNET, "dotted", f"{ATTENTION}.to_q"),
        (UNET, "kohya", f"{ATTENTION}.to_q"),
        (f"unet.{ATTENTION}.processor.to_q", "processor", f"{ATTENTION}.to_q"),
        (f"unet.{ATTENTION}.processor.to_out", "processor", f"{ATTENTION}.to_out.0"),
        (f"{ATTENTION}.processor.to_v", "processor", f"{ATTENTION}.to_v"),
        (f"unet.{ATTENTION}.to_out.0", "dotted", f"{ATTENTION}.to_out.0"),
        ("unet.mid_block.attentions.0.proj_in", "dotted", "mid_block.attentions.0.proj_in"),
        ("mid_block.attentions.0.proj_in", "peft", "mid_block.attentions.0.proj_in"),
        (
            f"text_encoder.{CLIP_LAYER}.self_attn.to_q",
            "processor",
            f"text_encoder.{CLIP_LAYER}.self_attn.q_proj",
        ),
        (
            f"text_encoder.{CLIP_LAYER}.self_attn.to_out",
            "processor",
            f"text_encoder.{CLIP_LAYER}.self_attn.out_proj",
        ),
        (
            f"text_encoder.{CLIP_LAYER}.self_attn.q_proj",
            "linear",
            f"text_encoder.{CLIP_LAYER}.self_attn.q_proj",
        ),
        (f"text_encoder_2.{CLIP_LAYER}.mlp.fc1", "linear", f"text_encoder_2.{CLIP_LAYER}.mlp.fc1"),
        ("text_encoder.encoder.layers.0.mlp.fc1", "peft", f"text_encoder.{CLIP_LAYER}.mlp.fc1"),
        ("text_encoder_2.text_projection", "dotted", "text_encoder_2.text_projection"),
        ("transformer.transformer_blocks.0.attn.to_q", "peft", "transformer_blocks.0.attn.to_q"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "peft", "double_blocks.0.img_attn.qkv"),
        ("diffusion_model.blocks.0.self_attn.q", "kohya", "blocks.0.self_attn.q"),
        ("model.diffusion_model.blocks.0.self_attn.q", "peft", "blocks.0.self_attn.q"),
        ("blocks.0.self_attn.q", "dumped", "blocks.0.self_attn.q"),
        ("transformer_2.blocks.0.attn1.to_q", "peft", "transformer_2.blocks.0.attn1.to_q"),
    ],
)
def test_every_spelling_names_the_module_and_without_more_the_scale_is_1(
    name: str, style: str, id: str, tmp_path: Path
) -> None:
    adapter = opened(tmp_path, pair(name, style=style))
    assert adapter.origin
    assert adapter.origin.format == "diffusers"
    assert list(adapter.shapes) == [id]
    np.testing.assert_array_equal(delta(only(adapter)), PRODUCT)


@pytest.mark.parametrize(
    ("name", "style"),
    [
        (f"{UNET}.alpha", "peft"),
        (f"{UNET}.alpha", "dotted"),
        (f"unet.{ATTENTION}.processor.to_q_lora.alpha", "processor"),
        (f"unet.{ATTENTION}.processor.to_q_lora.down.weight.alpha", "processor"),
        (f"{UNET}.lora.down.weight.alpha", "dotted"),
        (f"{UNET}.lora_linear_layer.alpha", "linear"),
    ],
)
@pytest.mark.parametrize(("alpha", "scale"), [(1.0, 0.5), (4.0, 2.0), (-2.0, -1.0), (0.0, 1.0)])
def test_an_alpha_is_divided_by_the_rank(
    name: str, style: str, alpha: float, scale: float, tmp_path: Path
) -> None:
    module = f"unet.{ATTENTION}.processor.to_q" if style == "processor" else UNET
    adapter = opened(tmp_path, {**pair(module, style=style), name: np.array(alpha, np.float32)})
    np.testing.assert_array_equal(delta(only(adapter)), scale * PRODUCT)


@pytest.mark.parametrize("alpha", [np.array(np.nan), np.array([1.0, 2.0]), np.array(1e300)], ids=str)
def test_an_alpha_that_is_no_usable_number_is_refused(alpha: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"to_q\.alpha"):
        opened(tmp_path, {**pair(), f"{UNET}.alpha": alpha})


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"unet__r": 2, "unet__lora_alpha": 2}, 1.0),
        ({"unet__r": 2, "unet__lora_alpha": 8}, 4.0),
        ({"unet__r": 2, "unet__lora_alpha": 2, "unet__use_rslora": True}, 2**0.5),
        ({"unet__r": 4, "unet__lora_alpha": 4, "unet__rank_pattern": {"attn1.to_q": 2}}, 2.0),
        ({"unet__r": 2, "unet__lora_alpha": 2, "unet__alpha_pattern": {f"^{ATTENTION}.to_q": 6}}, 3.0),
        ({"unet__r": 2, "unet__lora_alpha": 4, "text_encoder__r": 8, "text_encoder__use_rslora": True}, 2.0),
        ({"text_encoder__r": 2, "text_encoder__lora_alpha": 8}, 1.0),
        ({"unet__r": 2, "unet__lora_alpha": 4, "unet__peft_type": "LORA", "unet__peft_version": "0.21"}, 2.0),
    ],
    ids=str,
)
def test_the_metadata_give_the_scale_by_pefts_rules(fields: Any, scale: float, tmp_path: Path) -> None:
    adapter = opened(tmp_path, pair(), config(**fields))
    np.testing.assert_allclose(delta(only(adapter)), scale * PRODUCT, rtol=1e-12)


def test_a_model_saved_alone_has_metadata_without_a_component(tmp_path: Path) -> None:
    adapter = opened(tmp_path, pair("proj_out"), config(r=2, lora_alpha=1))
    np.testing.assert_array_equal(delta(adapter.modules["proj_out"]), 0.5 * PRODUCT)


@pytest.mark.parametrize(
    "fields",
    [
        {"unet__use_dora": True},
        {"unet__r": 4},
        {"unet__r": "2"},
        {"unet__lora_alpha": 0},
        {"unet__peft_type": "LOHA"},
        {"unet__a_field_of_tomorrow": 1},
        {"unet__init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_metadata_that_are_not_a_plain_loras_are_refused_with_the_field_named(
    fields: Any, tmp_path: Path
) -> None:
    (name,) = fields
    with pytest.raises(Refusal) as refusal:
        opened(tmp_path, pair(), config(**{"unet__r": 2, "unet__lora_alpha": 2, **fields}))
    field = name.removeprefix("unet__")
    assert field in refusal.value.what or field == "r"
    assert refusal.value.way_on


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"unet.r": 2, "unet.r": 4}', "[" * 100_000, '"r"'], ids=lambda t: t[:9]
)
def test_metadata_that_are_no_settings_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=SETTINGS_NAME):
        opened(tmp_path, pair(), {SETTINGS_NAME: text})


def test_what_is_told_of_some_modules_only_is_noted(tmp_path: Path) -> None:
    other = f"unet.{ATTENTION}.to_k"
    one, both = {f"{UNET}.alpha": np.float32(2)}, {**pair(), **pair(other)}
    for alphas, metadata, notes in (
        ({}, None, 0),
        (one, None, 1),
        ({**one, f"{other}.alpha": np.float32(2)}, None, 0),
        (one, config(unet__r=2, unet__lora_alpha=2), 0),
        ({}, config(text_encoder__r=2, unet__r=2, unet__lora_alpha=2), 1),
        ({}, config(r=2, lora_alpha=2), 0),
    ):
        adapter = opened(tmp_path, {**both, **alphas}, metadata)
        assert adapter.origin
        assert len(adapter.origin.notes) == notes
        if notes:
            about = "1 of 2 modules have no alpha" if alphas else "tells of text_encoder, of which"
            assert about in adapter.origin.notes[0]


def test_an_alpha_that_contradicts_the_metadata_is_refused(tmp_path: Path) -> None:
    metadata = config(unet__r=2, unet__lora_alpha=4)
    agreeing = opened(tmp_path, {**pair(), f"{UNET}.alpha": np.float32(4)}, metadata)
    np.testing.assert_array_equal(delta(only(agreeing)), 2 * PRODUCT)
    with pytest.raises(Refusal, match=r"to_q\.alpha gives a scale of 1, the metadata 2"):
        opened(tmp_path, {**pair(), f"{UNET}.alpha": np.float32(2)}, metadata)


@pytest.mark.parametrize("alphas", [(), (0, 2)], ids=["no alpha", "some alphas"])
def test_ranks_and_the_order_of_the_tensors_do_not_decide_the_scale(
    alphas: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    tensors: dict[str, Any] = {}
    expected = {}
    for i, rank in enumerate((4, 8, 32, 4)):
        a, b = rng.standard_normal((rank, 5)), rng.standard_normal((6, rank))
        tensors |= pair(f"transformer.transformer_blocks.{i}.attn.to_q", a, b)
        expected[f"transformer_blocks.{i}.attn.to_q"] = b @ a * (3 / rank if i in alphas else 1)
        if i in alphas:
            tensors[f"transformer.transformer_blocks.{i}.attn.to_q.alpha"] = np.float32(3)
    for seed in range(5):
        names = np.random.default_rng(seed).permutation(list(tensors))
        folder = tmp_path / str(seed)
        folder.mkdir()
        adapter = opened(folder, {str(name): tensors[name] for name in names})
        for module, due in expected.items():
            np.testing.assert_allclose(delta(adapter.modules[module]), due, rtol=1e-5, atol=1e-5)


def test_a_convolution_and_a_tucker_core(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    down, mid = rng.standard_normal((2, 3, 3, 1)), rng.standard_normal((2, 2, 3, 3))
    adapter = opened(
        tmp_path,
        {
            **pair("unet.conv_in", down, B[..., None, None]),
            **pair("unet.conv_out", A[..., None, None], B[..., None, None], "kohya"),
            "unet.conv_out.lora_mid.weight": mid,
        },
    )
    kernel = np.einsum("or,rihw->oihw", B, down)
    np.testing.assert_allclose(delta(adapter.modules["conv_in"]), kernel.reshape(2, -1), rtol=1e-6)
    kernel = np.einsum("op,pqhw,qi->oihw", B, mid, A)
    np.testing.assert_allclose(delta(adapter.modules["conv_out"]), kernel.reshape(2, -1), rtol=1e-5)


def test_a_bias_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"lora_B\.bias \[3\] is no bias of factors with \[2\] outputs"):
        opened(tmp_path, {**pair(), f"{UNET}.lora_B.bias": np.zeros(3, np.float32)})


def test_the_bias_of_lora_b_is_carried_with_the_scale_in_it(tmp_path: Path) -> None:
    bias = np.array([1.0, -2.0], np.float32)
    metadata = config(unet__r=2, unet__lora_alpha=4, unet__lora_bias=True)
    adapter = opened(tmp_path, {**pair(), f"{UNET}.lora_B.bias": bias}, metadata)
    extra = adapter.extras[f"{ATTENTION}.to_q.lora_bias"]
    assert extra.role == "lora_bias"
    np.testing.assert_array_equal(extra.read(), 2 * bias)
    with pytest.raises(Refusal, match="diffusers"):
        save_adapter(adapter, tmp_path, "diffusers")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{UNET}.dora_scale", "DoRA"),
        (f"{UNET}.lora_magnitude_vector", "DoRA"),
        (f"{UNET}.lora_magnitude_vector.weight", "DoRA"),
        (f"{UNET}.hada_w1_a", "LoHa"),
        (f"{UNET}.lokr_w1", "LoKr"),
        ("diffusion_model.blocks.0.norm3.diff", "full difference"),
        ("diffusion_model.blocks.0.norm3.diff_b", "bias"),
        (f"unet.{ATTENTION}.processor.to_k_custom_diffusion.weight", "Custom Diffusion"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", "another processor"),
        (f"{UNET}.lora_A.bias", "lora_A.weight"),
        (f"{UNET}.weight", "lora_A.weight"),
        ("transformer.transformer_blocks.0.attn.norm_q.weight", "lora_A.weight"),
    ],
)
def test_what_is_no_lora_is_refused_by_name_with_the_way_on(name: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refusal:
        opened(tmp_path, {**pair(), name: np.ones((2, 2), np.float32)})
    assert name in refusal.value.what
    assert kind in refusal.value.way_on


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pair(), pair(style="dotted")),
        (pair(), pair(f"unet.{ATTENTION}.processor.to_q", style="processor")),
        (pair(), pair(f"transformer.{ATTENTION}.to_q")),
        (
            pair(f"text_encoder.{CLIP_LAYER}.self_attn.q_proj", style="linear"),
            pair("text_encoder.encoder.layers.0.self_attn.to_q", style="processor"),
        ),
    ],
)
def test_two_names_of_one_tensor_are_refused(one: Any, other: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="are one tensor"):
        opened(tmp_path, {**one, **other})


@pytest.mark.parametrize("missing", [f"{UNET}.lora_A.weight", f"{UNET}.lora_B.weight"])
def test_a_factor_alone_is_refused(missing: str, tmp_path: Path) -> None:
    tensors = {**pair(), f"{UNET}.alpha": np.float32(1)}
    del tensors[missing]
    with pytest.raises(Refusal, match=f"of {UNET} there is only"):
        opened(tmp_path, tensors)


def test_a_bare_language_model_without_settings_is_no_file_of_diffusers(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no LoRA that pamctl knows"):
        opened(tmp_path, pair("model.layers.0.self_attn.q_proj"))


@pytest.mark.parametrize(
    "module", ["unet..", "unet.../../etc/passwd", "unet.", "unet.ü.x", "unet." + "x." * 200 + "x"]
)
def test_hostile_names_are_read_or_refused_and_never_a_path(module: str, tmp_path: Path) -> None:
    try:
        adapter = opened(tmp_path, pair(module))
    except Refusal:
        return
    np.testing.assert_array_equal(delta(only(adapter)), PRODUCT)


@settings(max_examples=60)
@given(
    adapter=st.one_of(
        adapters((*UNET_IDS, *TEXT_IDS), CONV_IDS),
        adapters((*TRANSFORMER_IDS, *TEXT_IDS)),
        adapters(PUBLISHED_IDS),
        adapters(),
    ),
    dtype=st.sampled_from(DTYPES),
    compact=st.booleans(),
    single=st.booleans(),
)
def test_what_is_written_is_read_with_the_same_deltas(
    tmp_path_factory: Any, adapter: Adapter, dtype: str, compact: bool, single: bool
) -> None:
    path = tmp_path_factory.mktemp("written") / ("a.safetensors" if single else "a")
    write_adapter(adapter, path, "diffusers", WriteOptions(dtype, compact))
    back = open_adapter(path)
    assert back.origin
    assert back.origin.format == "diffusers"
    same_deltas(back, adapter, dtype)
    assert {factors.scale for factors in back.modules.values()} == {1.0}
    if dtype == "F32":
        assert back.fingerprint == adapter.fingerprint
    ranks = {module: shape.rank for module, shape in adapter.shapes.items()}
    expected = ranks if compact else dict.fromkeys(ranks, max(ranks.values()))
    assert {module: shape.rank for module, shape in back.shapes.items()} == expected


@pytest.mark.parametrize(
    ("ids", "prefixes"),
    [
        (UNET_IDS, {"unet"}),
        (TRANSFORMER_IDS, {"transformer"}),
        (PUBLISHED_IDS, {"diffusion_model"}),
        (("blocks.0.self_attn.q",), {"diffusion_model"}),
        (("blocks.0.attn1.to_q",), {"transformer"}),
        ((*UNET_IDS, *TEXT_IDS), {"unet", "text_encoder", "text_encoder_2", "text_encoder_3"}),
        (("blocks.0.attn1.to_q", "transformer_2.blocks.0.attn1.to_q"), {"transformer", "transformer_2"}),
    ],
)
def test_the_component_is_chosen_by_the_ids(ids: tuple[str, ...], prefixes: set[str], tmp_path: Path) -> None:
    write_adapter(Adapter({id: random_factors(0, 3, 4) for id in ids}), tmp_path / "a", "diffusers")
    written = load_file(tmp_path / "a" / WEIGHTS_NAME)
    assert {name.partition(".")[0] for name in written} == prefixes
    assert {name.partition(".lora_")[2] for name in written} == {"A.weight", "B.weight"}


@pytest.mark.parametrize(
    ("read", "written"),
    [
        ("unet.transformer_in.proj_in", "unet.transformer_in.proj_in"),
        ("unet.add_time_proj", "unet.add_time_proj"),
        ("unet.b.0.to_q", "unet.b.0.to_q"),
        ("transformer.down_blocks.0.attn.to_q", "transformer.down_blocks.0.attn.to_q"),
        ("transformer.double_blocks.0.img_attn.qkv", "transformer.double_blocks.0.img_attn.qkv"),
        ("diffusion_model.b.0.to_q", "diffusion_model.b.0.to_q"),
        ("model.diffusion_model.b.0.to_q", "diffusion_model.b.0.to_q"),
        ("diffusion_model.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_q"),
        ("diffusion_model.input_blocks.4.1.proj_in", "unet.down_blocks.1.attentions.0.proj_in"),
        ("up_blocks.0.resnets.0.conv1", "unet.up_blocks.0.resnets.0.conv1"),
    ],
)
def test_a_component_that_was_read_is_kept(read: str, written: str, tmp_path: Path) -> None:
    adapter = opened(tmp_path, pair(read))
    for made in (adapter, convert(adapter).adapter, merge([adapter, adapter])):
        write_adapter(made, tmp_path / "b.safetensors", "diffusers", force=True)
        assert set(load_file(tmp_path / "b.safetensors")) == set(pair(written))


def test_the_metadata_say_alpha_is_the_rank_in_each_component(tmp_path: Path) -> None:
    clip = f"{CLIP_LAYER}.mlp.fc1"
    adapter = Adapter(
        {
            "mid_block.a": random_factors(0, 3, 4, 2, 0.5),
            "mid_block.b": random_factors(1, 3, 4, 4),
            f"text_encoder.{clip}": random_factors(2, 3, 4, 3),
        }
    )
    write_adapter(adapter, tmp_path / "a", "diffusers", WriteOptions(compact=True))
    back = open_adapter(tmp_path / "a")
    assert back.origin
    said = json.loads(back.origin.settings[SETTINGS_NAME])
    assert {
        said["unet.r"],
        said["unet.lora_alpha"],
        said["text_encoder.r"],
        said["text_encoder.lora_alpha"],
    } == {4}
    assert said["unet.rank_pattern"] == said["unet.alpha_pattern"] == {r"^mid_block\.a": 2}
    # without text_model, which is in the model's path or not as the release of transformers has it
    assert said["text_encoder.rank_pattern"] == {r"encoder\.layers\.0\.mlp\.fc1": 3}
    assert said["text_encoder.target_modules"] == ["encoder.layers.0.mlp.fc1"]


def test_equal_adapters_give_equal_bytes(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a",))
    turned = Adapter(
        dict(sorted(adapter.modules.items(), reverse=True)), adapter.provenance, adapter.base_model
    )
    for name, one in (("a", adapter), ("b", turned)):
        write_adapter(one, tmp_path / f"{name}.safetensors", "diffusers")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_single_file_carries_the_record_and_a_folder_has_it_beside(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a", "b"))
    write_adapter(adapter, tmp_path / "a.safetensors", "diffusers")
    write_adapter(adapter, tmp_path / "a", "diffusers")
    for written in (tmp_path / "a.safetensors", tmp_path / "a"):
        back = open_adapter(written)
        assert back.provenance
        assert back.provenance.tasks == ("a", "b")
        assert back.base_model == "tiny"
        assert back.fingerprint == adapter.fingerprint


def test_what_has_no_place_is_refused(tmp_path: Path) -> None:
    a, b = np.ones((1, 3), np.float32), np.ones((2, 1), np.float32)
    embedding = Adapter({"embed_tokens": LoraFactors(a, b, layer=EMBEDDING)})
    extra = Extra("module", (2,), "F32", lambda: np.ones(2, np.float32))
    for adapter in (embedding, Adapter({"x": LoraFactors(a, b)}, extras={"lm_head.weight": extra})):
        with pytest.raises(Refusal, match="diffusers"):
            save_adapter(adapter, tmp_path, "diffusers")
    assert not list(tmp_path.iterdir())
