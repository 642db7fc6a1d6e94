import pytest

from pamctl.adapters.flattening import flattened, is_flattened, unflattened


@pytest.mark.parametrize(
    "path",
    [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "transformer_blocks.0.ff_context.net.0.proj",
        "single_transformer_blocks.17.proj_mlp",
        "mid_block.resnets.0.time_emb_proj",
        "time_text_embed.timestep_embedder.linear_1",
        "model.layers.11.self_attn.q_proj",
        "transformer.h.0.attn.c_attn",
        "visual.deepstack_merger_list.0.linear_fc1",
    ],
)
def test_a_path_of_known_words_comes_back_exactly(path: str) -> None:
    assert is_flattened(flattened(path)) or path.startswith("time_text_embed")
    assert unflattened(flattened(path)) == path


@pytest.mark.parametrize(
    ("module", "id"),
    [
        ("language_model.layers_0_mlp_gate_proj", "language_model.layers.0.mlp.gate_proj"),
        (
            "text_encoder_2.text_model_encoder_layers_0_self_attn_out_proj",
            "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj",
        ),
        ("multi_modal_projector.linear_1", "multi_modal_projector.linear_1"),
        ("lm_head", "lm_head"),
        ("foo.bar_0_baz.q_proj", "foo.bar_0_baz.q_proj"),
    ],
)
def test_the_component_and_what_is_dotted_stay(module: str, id: str) -> None:
    assert unflattened(module) == id


@pytest.mark.parametrize(
    "module",
    [
        "double_blocks_0_img_attn_qkv",
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "transformer_blocks_0_attn1_to_q_extra",
        "layers__0",
        "mlp_0_" * 50_000,
        "",
    ],
)
def test_unknown_words_are_not_guessed_at(module: str) -> None:
    assert unflattened(module) is None
