"""Which PaliGemma the arrays of a big_vision checkpoint are: all from their shapes, as it holds no config."""

import math
from collections.abc import Mapping

from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.npz_file import NpzArray
from pamctl.refusal import Refusal

ADDED_ROWS = 64
"""Rows of the embedding in Hugging Face layout beyond those of big_vision: <image> and what pads to 64."""

SECOND_NORM = "llm/layers/post_attention_norm/scale"
"""What only the second generation has."""

_LAYER = "img/Transformer/encoderblock"
_AXES = {
    "img/embedding/kernel": "patch patch channels width",
    "img/pos_embedding": "one places width",
    f"{_LAYER}/MlpBlock_0/Dense_0/kernel": "layers width hidden",
    f"{_LAYER}/MultiHeadDotProductAttention_0/query/kernel": "layers width heads head",
    "llm/embedder/input_embedding": "rows width",
    "llm/layers/attn/q_einsum/w": "layers heads width head",
    "llm/layers/attn/kv_einsum/w": "layers two key_heads width head",
    "llm/layers/mlp/gating_einsum": "layers two width hidden",
}
_PER_HEAD = (4608, 32)
"""Width and heads of Gemma 2 27B, alone in scaling queries by width / heads and not by the head's width."""


def inferred_config(arrays: Mapping[str, NpzArray], source: str) -> PaliGemmaConfig:
    """Return the configuration that arrays of these shapes belong to.

    Args:
        arrays: by big_vision's names, without `params/`.
        source: the file, for messages.

    Raises:
        Refusal: an array that tells a size is missing or has another number of axes.
    """
    sizes = {name: _sizes(arrays, name, axes.split(), source) for name, axes in _AXES.items()}
    patches, places, vision_mlp, vision_query, rows, query, keys, gating = sizes.values()
    side = math.isqrt(places["places"])
    if side**2 != places["places"]:
        raise Refusal(
            f"{source}: img/pos_embedding has {places['places']} places, which are no square", _WAY_ON
        )
    second = SECOND_NORM in arrays
    text = TextConfig(
        hidden_size=rows["width"],
        intermediate_size=gating["hidden"],
        num_hidden_layers=query["layers"],
        num_attention_heads=query["heads"],
        num_key_value_heads=keys["key_heads"],
        vocab_size=rows["rows"] + ADDED_ROWS,
        head_dim=query["head"],
        **(_second_generation(rows["width"], query["heads"], query["head"]) if second else {}),
    )
    vision = VisionConfig(
        hidden_size=patches["width"],
        intermediate_size=vision_mlp["hidden"],
        num_hidden_layers=vision_query["layers"],
        num_attention_heads=vision_query["heads"],
        image_size=side * patches["patch"],
        patch_size=patches["patch"],
    )
    return PaliGemmaConfig(vision, text, image_token_index=rows["rows"])


_WAY_ON = "use a PaliGemma checkpoint of big_vision, such as paligemma-3b-pt-224.npz"


def _sizes(arrays: Mapping[str, NpzArray], name: str, axes: list[str], source: str) -> dict[str, int]:
    if name not in arrays:
        raise Refusal(f"{source} has no {name}", _WAY_ON)
    shape = arrays[name].shape
    if len(shape) != len(axes) or not all(shape):
        raise Refusal(f"{source}: {name} has shape {shape}, which should be ({', '.join(axes)})", _WAY_ON)
    return dict(zip(axes, shape, strict=True))


def _second_generation(width: int, heads: int, head_dim: int) -> dict:
    scale = width // heads if (width, heads) == _PER_HEAD else head_dim
    return {
        "generation": 2,
        "query_pre_attn_scalar": scale,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
    }
