import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.adapters.module_names import (
    SPELLINGS,
    as_text_tower,
    canonical_id,
    canonical_ids,
    kind,
    layout,
    target_name,
    tower,
    written_path,
)

# id -> as transformers spells it up to 4.51, from 4.52 to 4.57, and in 5
LLAVA_LIKE = {
    "language_model.layers.3.mlp.up_proj": (
        "language_model.model.layers.3.mlp.up_proj",
        "model.language_model.layers.3.mlp.up_proj",
        "model.language_model.layers.3.mlp.up_proj",
    ),
    "language_model.embed_tokens": (
        "language_model.model.embed_tokens",
        "model.language_model.embed_tokens",
        "model.language_model.embed_tokens",
    ),
    "vision_tower.encoder.layers.0.mlp.fc1": (
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1",
        "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
        "model.vision_tower.encoder.layers.0.mlp.fc1",
    ),
    "vision_tower.embeddings.patch_embedding": (
        "vision_tower.vision_model.embeddings.patch_embedding",
        "model.vision_tower.vision_model.embeddings.patch_embedding",
        "model.vision_tower.embeddings.patch_embedding",
    ),
    "vision_tower.head.mlp.fc1": (
        "vision_tower.vision_model.head.mlp.fc1",
        "model.vision_tower.vision_model.head.mlp.fc1",
        "model.vision_tower.head.mlp.fc1",
    ),
    # Pixtral in Mistral 3, and InternVL: no vision_model in any release
    "vision_tower.transformer.layers.0.attention.q_proj": (
        "vision_tower.transformer.layers.0.attention.q_proj",
        "model.vision_tower.transformer.layers.0.attention.q_proj",
        "model.vision_tower.transformer.layers.0.attention.q_proj",
    ),
    "vision_tower.encoder.layer.0.attention.q_proj": (
        "vision_tower.encoder.layer.0.attention.q_proj",
        "model.vision_tower.encoder.layer.0.attention.q_proj",
        "model.vision_tower.encoder.layer.0.attention.q_proj",
    ),
    "multi_modal_projector.linear_1": (
        "multi_modal_projector.linear_1",
        "model.multi_modal_projector.linear_1",
        "model.multi_modal_projector.linear_1",
    ),
    "lm_head": ("language_model.lm_head", "lm_head", "lm_head"),
}
QWEN_LIKE = {
    "language_model.layers.0.self_attn.q_proj": (
        "model.layers.0.self_attn.q_proj",
        "model.language_model.layers.0.self_attn.q_proj",
        "model.language_model.layers.0.self_attn.q_proj",
    ),
    "language_model.embed_tokens": (
        "model.embed_tokens",
        "model.language_model.embed_tokens",
        "model.language_model.embed_tokens",
    ),
    "visual.blocks.0.attn.qkv": (
        "visual.blocks.0.attn.qkv",
        "model.visual.blocks.0.attn.qkv",
        "model.visual.blocks.0.attn.qkv",
    ),
    "visual.merger.mlp.0": ("visual.merger.mlp.0", "model.visual.merger.mlp.0", "model.visual.merger.mlp.0"),
    "lm_head": ("lm_head", "lm_head", "lm_head"),
}
PLAIN = {
    path: (path, path, path)
    for path in ("model.layers.0.mlp.up_proj", "model.embed_tokens", "transformer.h.0.attn.c_attn", "lm_head")
}
FAMILIES = {"llava": LLAVA_LIKE, "qwen2_vl": QWEN_LIKE, "plain": PLAIN}
BASES = {"llava": "google/paligemma-3b-pt-224", "qwen2_vl": "Qwen/Qwen2.5-VL-3B-Instruct", "plain": None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_generation_of_a_path_gives_one_id_and_is_written_again(family: str, spelling: str) -> None:
    modules = {id: spelled[SPELLINGS.index(spelling)] for id, spelled in FAMILIES[family].items()}
    assert canonical_ids(modules.values()) == {path: id for id, path in modules.items()}
    found = layout(modules)
    assert found == family
    assert {id: written_path(id, spelling, found) for id in modules} == modules


@given(st.data())
def test_what_is_written_is_read_as_the_same_id_in_every_company(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(sorted(FAMILIES)))
    modules = data.draw(st.sets(st.sampled_from(sorted(FAMILIES[family])), min_size=1))
    base = data.draw(st.sampled_from([None, BASES[family]]))
    found = layout(modules, base)
    for spelling in SPELLINGS:
        paths = [written_path(module, spelling, found) for module in modules]
        assert set(canonical_ids(paths, base).values()) == modules
        for path, module in zip(paths, modules, strict=True):
            assert f".{path}".endswith(f".{target_name(module, spelling, found)}")


@pytest.mark.parametrize("id", LLAVA_LIKE)
def test_the_target_name_is_one_and_the_same_from_transformers_4_52_on(id: str) -> None:
    assert target_name(id, "4.57") == target_name(id, "5")


def test_layers_of_a_bare_model_are_told_from_a_text_tower_by_company() -> None:
    text = "model.layers.0.self_attn.q_proj"
    assert canonical_ids([text]) == {text: text}
    for vision in (
        "visual.blocks.0.attn.qkv",
        "model.mm_projector.0",
        "vision_tower.encoder.layers.0.mlp.fc1",
    ):
        assert canonical_ids([text, vision])[text] == "language_model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("base", "known"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", True),
        ("unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit", True),
        ("Qwen/Qwen3-VL-4B", True),
        ("liuhaotian/llava-v1.5-7b", True),
        ("C:\\models\\llava-v1.5-7b\\", True),
        ("/llava/vicuna-7b-v1.5", False),
        ("Qwen/Qwen2.5-7B-Instruct", False),
        ("meta-llama/Llama-3.2-1B", False),
    ],
)
def test_or_by_the_name_of_the_base_which_is_that_of_its_last_part(base: str, known: bool) -> None:
    path = "model.layers.0.mlp.up_proj"
    assert canonical_ids([path], base)[path] == (as_text_tower(path) if known else path)


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("model.layers.0.self_attn.q_proj", "language_model.layers.0.self_attn.q_proj"),
        ("model.mm_projector.0", "multi_modal_projector.linear_1"),
        ("model.mm_projector.2", "multi_modal_projector.linear_2"),
        (
            "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
            "vision_tower.encoder.layers.0.self_attn.q_proj",
        ),
    ],
)
def test_llavas_own_repository_names_the_same_modules(path: str, id: str) -> None:
    assert canonical_ids([path, "model.mm_projector.0"])[path] == id


@pytest.mark.parametrize("encoder", ["text_encoder", "text_encoder_2"])
def test_the_text_model_that_transformers_5_leaves_out_is_in_the_id(encoder: str) -> None:
    id = f"{encoder}.text_model.encoder.layers.0.mlp.fc1"
    assert canonical_id(f"{encoder}.encoder.layers.0.mlp.fc1") == id == canonical_id(id)
    assert canonical_id("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q").startswith(
        "text_encoder_3.enc"
    )


@pytest.mark.parametrize(
    "path",
    [
        "model.layers.0.mlp.up_proj",
        "../../etc/passwd",
        "visual.transformer.resblocks.0.mlp.c_fc",
        "language_modelling.0",
        "down_blocks.0.attentions.0.proj_in",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
    ],
)
def test_other_paths_are_their_own_id_and_are_written_as_they_are(path: str) -> None:
    assert canonical_id(path) == path == written_path(path) == target_name(path)


@pytest.mark.parametrize(
    ("id", "of"),
    [
        ("vision_tower.encoder.layers.0.mlp.fc1", ("vision_tower", "fc1")),
        ("visual.merger.mlp.0", ("vision_tower", "mlp.0")),
        ("multi_modal_projector.linear", ("multi_modal_projector", "linear")),
        ("language_model.layers.0.mlp.up_proj", ("language_model", "up_proj")),
        ("model.layers.0.mlp.up_proj", ("language_model", "up_proj")),
        ("transformer.h.0.attn.c_attn", ("language_model", "c_attn")),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", ("text_encoder_2", "fc1")),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0", ("denoiser", "to_out.0")),
        ("down_blocks_0_attentions_0_proj_in", ("denoiser", "proj_in")),
        ("double_blocks_0_img_attn_qkv", ("denoiser", "double_blocks_0_img_attn_qkv")),
        ("model_layers_0_mlp_up_proj", ("language_model", "up_proj")),
        ("language_model.layers_0_mlp_up_proj", ("language_model", "up_proj")),
        ("lm_head", ("other", "lm_head")),
        ("0", ("other", "0")),
    ],
)
def test_tower_and_kind(id: str, of: tuple[str, str]) -> None:
    assert (tower(id), kind(id)) == of
