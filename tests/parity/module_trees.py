"""Small models of transformers and diffusers, and the module paths in them."""

from collections.abc import Callable
from functools import cache
from typing import Any

_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_CLIP_TEXT = {name: size for name, size in _TEXT.items() if name not in ("num_key_value_heads", "head_dim")}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_VISION = {
    "depth": 2,
    "embed_dim": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 16,
}
_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 8,
    "layers_per_block": 1,
}
_JOINT = {
    "in_channels": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "pooled_projection_dim": 8,
}


def _vision_language(name: str, text: str, vision: str, **sizes: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        config = getattr(transformers, f"{name}Config")(
            text_config={"model_type": text, **_TEXT},
            vision_config={"model_type": vision, **_VISION, **sizes},
        )
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)

    return build


def _of_transformers(model: str, config: str, **sizes: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**sizes))

    return build


def _qwen(version: str, **sizes: Any) -> Callable[[], Any]:
    name = f"Qwen{version}VL"
    vision = {**_QWEN_VISION, **sizes}
    return _of_transformers(
        f"{name}ForConditionalGeneration", f"{name}Config", vision_config=vision, text_config=_TEXT
    )


def _of_diffusers(model: str, **sizes: Any) -> Callable[[], Any]:
    def build() -> Any:
        import diffusers

        return getattr(diffusers, model)(**sizes)

    return build


LLAVA_LIKE = {
    "PaliGemma": _vision_language("PaliGemma", "gemma", "siglip_vision_model"),
    "LLaVA": _vision_language("Llava", "llama", "clip_vision_model"),
    "LLaVA-NeXT": _vision_language("LlavaNext", "llama", "clip_vision_model"),
    "LLaVA-OneVision": _vision_language("LlavaOnevision", "qwen2", "siglip_vision_model"),
    "Gemma 3": _vision_language("Gemma3", "gemma3_text", "siglip_vision_model"),
    "Mistral 3": _vision_language("Mistral3", "mistral", "pixtral"),
    "InternVL": _vision_language(
        "InternVL", "qwen2", "internvl_vision", image_size=[28, 28], patch_size=[14, 14]
    ),
}
QWEN_LIKE = {
    "Qwen2-VL": _qwen("2"),
    "Qwen2.5-VL": _qwen("2_5_"),
    "Qwen3-VL": _qwen("3", deepstack_visual_indexes=[0]),
}
LANGUAGE_MODELS = {
    "Llama": _of_transformers("LlamaForCausalLM", "LlamaConfig", **_TEXT),
    "Gemma": _of_transformers("GemmaForCausalLM", "GemmaConfig", **_TEXT),
    "Qwen3": _of_transformers("Qwen3ForCausalLM", "Qwen3Config", **_TEXT),
    "GPT-2": _of_transformers(
        "GPT2LMHeadModel",
        "GPT2Config",
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=32,
        bos_token_id=1,
        eos_token_id=2,
    ),
}
TEXT_ENCODERS = {
    "CLIP": _of_transformers("CLIPTextModel", "CLIPTextConfig", **_CLIP_TEXT),
    "CLIP with projection": _of_transformers("CLIPTextModelWithProjection", "CLIPTextConfig", **_CLIP_TEXT),
    "T5": _of_transformers(
        "T5EncoderModel",
        "T5Config",
        d_model=16,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        vocab_size=32,
        feed_forward_proj="gated-gelu",
    ),
}
DENOISERS = {
    "SD 1.5": _of_diffusers("UNet2DConditionModel", **_UNET),
    "SDXL": _of_diffusers(
        "UNet2DConditionModel",
        **_UNET,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        transformer_layers_per_block=(1, 2),
    ),
    "SD 3.5": _of_diffusers(
        "SD3Transformer2DModel",
        **_JOINT,
        sample_size=8,
        num_layers=2,
        caption_projection_dim=32,
        out_channels=4,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ),
    "Flux": _of_diffusers(
        "FluxTransformer2DModel", **_JOINT, num_layers=2, num_single_layers=2, guidance_embeds=True
    ),
    "PixArt": _of_diffusers("PixArtTransformer2DModel", num_layers=2, sample_size=8),
    "Sana": _of_diffusers("SanaTransformer2DModel", num_layers=2),
    "Wan": _of_diffusers("WanTransformer3DModel", num_layers=2, image_dim=8, added_kv_proj_dim=24),
    "HunyuanVideo": _of_diffusers("HunyuanVideoTransformer3DModel", num_layers=2, num_single_layers=2),
    "LTX": _of_diffusers("LTXVideoTransformer3DModel", num_layers=2),
    "CogVideoX": _of_diffusers("CogVideoXTransformer3DModel", num_layers=2),
    "Qwen-Image": _of_diffusers("QwenImageTransformer2DModel", num_layers=2),
}


def built(name: str) -> Any:
    """One of the models above, with random weights."""
    return {**LLAVA_LIKE, **QWEN_LIKE, **LANGUAGE_MODELS, **TEXT_ENCODERS, **DENOISERS}[name]()


@cache
def module_paths(name: str) -> tuple[str, ...]:
    """The path of every linear, convolution and embedding of one of the models above."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Embedding)
    with torch.device("meta"):
        model = built(name)
    return tuple(
        path
        for path, module in model.named_modules()
        if isinstance(module, kinds) or type(module).__name__ == "Conv1D"
    )
