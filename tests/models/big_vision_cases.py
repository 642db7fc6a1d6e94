"""A model's parameters as big_vision would hold them, written from its einsums and not from our reader."""

from pathlib import Path

import ml_dtypes
import numpy as np

from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.leaves import model_leaves

ROWS = 30
VISION = VisionConfig(12, 20, 2, 3, image_size=8, patch_size=4)
SECOND = {
    "generation": 2,
    "query_pre_attn_scalar": 6,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
}
CONFIGS = {
    generation: PaliGemmaConfig(
        VISION,
        TextConfig(16, 24, 3, 4, 2, ROWS + 64, 6, **(SECOND if generation == 2 else {})),
        image_token_index=ROWS,
    )
    for generation in (1, 2)
}


def random_checkpoint(config: PaliGemmaConfig, dtype=np.float32) -> dict[str, np.ndarray]:
    """Tensors by canonical Hugging Face names, random but for the rows that big_vision does not have."""
    draws = np.random.default_rng(0)
    tensors = {
        name: draws.normal(0, 0.2, leaf.stored).astype(dtype)
        for leaf in model_leaves(config)
        for name in leaf.names()
    }
    tensors["language_model.embed_tokens.weight"][ROWS:] = 0
    return tensors


def big_vision_arrays(tensors: dict[str, np.ndarray], config: PaliGemmaConfig) -> dict[str, np.ndarray]:
    """The same numbers in the layout that big_vision's einsums multiply with."""
    return {**_image(tensors, config.vision), **_language(tensors, config.text)}


def _image(tensors: dict[str, np.ndarray], vision: VisionConfig) -> dict[str, np.ndarray]:
    n, h, d = vision.num_attention_heads, vision.head_dim, vision.hidden_size

    def layers(name: str) -> np.ndarray:
        return np.stack(
            [tensors[f"vision_tower.encoder.layers.{i}.{name}"] for i in range(vision.num_hidden_layers)]
        )

    v, block = "vision_tower.", "img/Transformer/encoderblock"
    patches = tensors[f"{v}embeddings.patch_embedding.weight"]
    arrays = {
        "img/embedding/kernel": np.einsum("oihw->hwio", patches),
        "img/embedding/bias": tensors[f"{v}embeddings.patch_embedding.bias"],
        "img/pos_embedding": tensors[f"{v}embeddings.position_embedding.weight"][None],
        "img/Transformer/encoder_norm/scale": tensors[f"{v}post_layernorm.weight"],
        "img/Transformer/encoder_norm/bias": tensors[f"{v}post_layernorm.bias"],
        "img/head/kernel": np.einsum("oi->io", tensors["multi_modal_projector.linear.weight"]),
        "img/head/bias": tensors["multi_modal_projector.linear.bias"],
    }
    for number in (0, 1):
        arrays[f"{block}/LayerNorm_{number}/scale"] = layers(f"layer_norm{number + 1}.weight")
        arrays[f"{block}/LayerNorm_{number}/bias"] = layers(f"layer_norm{number + 1}.bias")
        arrays[f"{block}/MlpBlock_0/Dense_{number}/kernel"] = np.einsum(
            "loi->lio", layers(f"mlp.fc{number + 1}.weight")
        )
        arrays[f"{block}/MlpBlock_0/Dense_{number}/bias"] = layers(f"mlp.fc{number + 1}.bias")
    attention = f"{block}/MultiHeadDotProductAttention_0"
    for name in ("query", "key", "value"):
        weight, bias = (layers(f"self_attn.{name[0]}_proj.{kind}") for kind in ("weight", "bias"))
        arrays[f"{attention}/{name}/kernel"] = np.einsum("lnhd->ldnh", weight.reshape(-1, n, h, d))
        arrays[f"{attention}/{name}/bias"] = bias.reshape(-1, n, h)
    out = layers("self_attn.out_proj.weight").reshape(-1, d, n, h)
    arrays[f"{attention}/out/kernel"] = np.einsum("ldnh->lnhd", out)
    arrays[f"{attention}/out/bias"] = layers("self_attn.out_proj.bias")
    return arrays


def _language(tensors: dict[str, np.ndarray], text: TextConfig) -> dict[str, np.ndarray]:
    n, k, h, d = text.num_attention_heads, text.num_key_value_heads, text.head_dim, text.hidden_size

    def layers(name: str) -> np.ndarray:
        return np.stack([tensors[f"language_model.layers.{i}.{name}"] for i in range(text.num_hidden_layers)])

    def heads(name: str, count: int) -> np.ndarray:
        return np.einsum("lnhd->lndh", layers(f"self_attn.{name}_proj.weight").reshape(-1, count, h, d))

    before_feed_forward = ("post_attention" if text.generation == 1 else "pre_feedforward") + "_layernorm"
    arrays = {
        "llm/embedder/input_embedding": tensors["language_model.embed_tokens.weight"][:ROWS],
        "llm/final_norm/scale": tensors["language_model.norm.weight"],
        "llm/layers/attn/q_einsum/w": heads("q", n),
        "llm/layers/attn/kv_einsum/w": np.stack([heads("k", k), heads("v", k)], 1),
        "llm/layers/attn/attn_vec_einsum/w": np.einsum(
            "ldnh->lnhd", layers("self_attn.o_proj.weight").reshape(-1, d, n, h)
        ),
        "llm/layers/mlp/gating_einsum": np.stack(
            [np.einsum("lfd->ldf", layers(f"mlp.{name}_proj.weight")) for name in ("gate", "up")], 1
        ),
        "llm/layers/mlp/linear": np.einsum("ldf->lfd", layers("mlp.down_proj.weight")),
        "llm/layers/pre_attention_norm/scale": layers("input_layernorm.weight"),
        "llm/layers/pre_ffw_norm/scale": layers(f"{before_feed_forward}.weight"),
    }
    if text.generation == 2:
        arrays["llm/layers/post_attention_norm/scale"] = layers("post_attention_layernorm.weight")
        arrays["llm/layers/post_ffw_norm/scale"] = layers("post_feedforward_layernorm.weight")
    return arrays


def write_npz(
    file: Path, arrays: dict[str, np.ndarray], prefix: str = "params/", compressed: bool = False
) -> None:
    """As big_vision saves them: numpy calls bfloat16 two bytes of no meaning."""
    held = {
        prefix + name: array.view("V2") if array.dtype == ml_dtypes.bfloat16 else array
        for name, array in ((name, np.ascontiguousarray(array)) for name, array in arrays.items())
    }
    (np.savez_compressed if compressed else np.savez)(file, **held)
