import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.adapters import flattening
from pamctl.adapters.flattening import flattened, is_flattened, unflattened

_PARTS = sorted(flattening._PART_WORDS.values())
_LISTS = st.builds(
    "{}.{}".format, st.sampled_from(sorted(flattening._LIST_WORDS.values())), st.integers(0, 99)
)
_ENDS = st.sampled_from(sorted(flattening._LEAF_WORDS.values())) | _LISTS


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


@given(st.lists(st.sampled_from(_PARTS) | _LISTS, max_size=8), _ENDS)
def test_a_path_of_any_known_words_comes_back_exactly_or_not_at_all(words: list[str], end: str) -> None:
    path = ".".join([*words, end])
    found = unflattened(flattened(path))
    # two leaves begin as words end: norm.out_proj is norm_out.proj too
    assert found == path or (found is None and words and len(set(flattening._paths(flattened(path)))) > 1)


def test_what_has_two_readings_is_not_told() -> None:
    assert unflattened("transformer_blocks_0_norm_out_proj") is None


def test_the_words_before_the_end_have_one_reading_so_that_no_name_takes_long() -> None:
    """Sardinas and Patterson: no remainder of one sequence of words in another is itself a word."""
    lists = {(*word.split("_"), "number") for word in flattening._LIST_WORDS}
    words = {tuple(word.split("_")) for word in flattening._PART_WORDS} | lists
    remainders, ahead = set(), [longer[len(word) :] for word in words for longer in _longer(word, words)]
    while ahead:
        remainder = ahead.pop()
        if remainder not in remainders:
            remainders.add(remainder)
            ahead += [longer[len(remainder) :] for longer in _longer(remainder, words)]
            ahead += [remainder[len(word) :] for word in words if remainder in _longer(word, {remainder})]
    assert remainders
    assert not remainders & words


def _longer(word: tuple[str, ...], words: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [longer for longer in words if len(longer) > len(word) and longer[: len(word)] == word]
