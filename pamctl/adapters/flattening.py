"""How a module path is flattened, as kohya does, and when a flattened one can be taken apart exactly."""

import re
from collections.abc import Iterator

# A path is any number of parts and of numbered lists, then a leaf or a number in a list. Flattened, the `_`
# between words looks like the `_` within one, so the words are known by name: those of all linears,
# convolutions and embeddings in the language models, Gemma 3, LLaVA, Mistral 3, InternVL, Qwen-VL, CLIP,
# SigLIP and T5 of transformers 5.23, and in the UNets, SD 3.5, Flux, PixArt, Sana, Wan, HunyuanVideo, LTX,
# CogVideoX and Qwen-Image of diffusers 0.42. A word with a dot stands for two that are always together:
# `transformer` by itself would not be told from the beginning of `transformer_blocks`.
_PARTS = """
    DenseReluDense SelfAttention adaln_single add_embedding attention attn attn1 attn2 caption_projection
    condition_embedder context_embedder emb embeddings encoder feed_forward ff ff_context ffn
    guidance_embedder head image_embedder img_mlp language_model merger mid_block mlp model
    multi_modal_projector norm norm1 norm1_context norm2 norm_out patch_embed patch_embeddings patch_merger
    pos_embed self_attn text_embedder text_model time_embed time_embedder time_embedding time_text_embed
    timestep_embedder token_refiner txt_mlp vision_model vision_tower visual x_embedder
"""
_LISTS = """
    attentions block blocks deepstack_merger_list down_blocks downsamplers img_mod layer layers mlp net
    refiner_blocks resnets single_transformer_blocks to_out transformer.h transformer.layers
    transformer_blocks txt_mod up_blocks upsamplers
"""
_LEAVES = """
    add_k_proj add_q_proj add_v_proj c_attn c_fc c_proj context_embedder conv conv1 conv2 conv_depth conv_in
    conv_inverted conv_out conv_point conv_shortcut down_proj embed_tokens fc1 fc2 gate_proj img_in k k_proj
    linear linear_1 linear_2 linear_fc1 linear_fc2 lm_head merging_layer o o_proj out_proj patch_conv
    patch_embedding pos_embed position_embedding proj proj_in proj_mlp proj_out projection projection_layer
    q q_proj qkv relative_attention_bias shared text_proj text_projection time_emb_proj time_proj to_add_out
    to_k to_q to_v token_embedding transformer.wpe transformer.wte txt_in up_proj v v_proj wi_0 wi_1 wo
    x_embedder
"""
_LONGEST = 300  # characters; the longest path of those models has 94

_NUMBERED = re.compile(r"(.+)_(\d+)")
_COMPONENT = re.compile(
    r"(?:language_model|vision_tower|multi_modal_projector|visual|text_encoder(?:_[23])?)\."
)


def flattened(module: str) -> str:
    """An id with `_` for every dot."""
    return module.replace(".", "_")


def is_one_name(module: str) -> bool:
    """Whether an id, less its component, is a flattened path or one name anyway, as `conv_in`."""
    return "." not in _split(module)[1]


def is_flattened(module: str) -> bool:
    """Whether an id is a flattened path for certain: one name with a number within it."""
    return is_one_name(module) and re.search(r"_\d+_", module) is not None


def unflattened(module: str) -> str | None:
    """The one dotted id that an id was flattened from, or None where the known words do not tell.

    A name of letters and digits was flattened from nothing but itself.
    """
    component, rest = _split(module)
    if "." in rest or rest.isalnum():
        return module
    paths = set(_paths(rest)) if len(rest) <= _LONGEST else set()
    return component + paths.pop() if len(paths) == 1 else None


def _split(module: str) -> tuple[str, str]:
    """The component that a flattened id keeps before its one dot, and the rest."""
    found = _COMPONENT.match(module)
    return (found[0], module[found.end() :]) if found else ("", module)


def _paths(flat: str) -> Iterator[str]:
    """Every path of known words that flattens to this."""
    if end := _word(flat, _LEAF_WORDS):
        yield end
    for cut in re.finditer("_", flat):
        if word := _word(flat[: cut.start()], _PART_WORDS):
            yield from (f"{word}.{rest}" for rest in _paths(flat[cut.end() :]))


def _word(flat: str, words: dict[str, str]) -> str | None:
    """One of these words, or a numbered list with its number, dotted."""
    found = _NUMBERED.fullmatch(flat)
    if found and found[1] in _LIST_WORDS:
        return f"{_LIST_WORDS[found[1]]}.{found[2]}"
    return words.get(flat)


_PART_WORDS, _LIST_WORDS, _LEAF_WORDS = (
    {flattened(word): word for word in words.split()} for words in (_PARTS, _LISTS, _LEAVES)
)
