"""Every spelling of a module path and the one id it stands for."""

import re
from collections.abc import Iterable
from typing import Literal

from pamctl.adapters.flattening import unflattened

SPELLINGS = ("4.51", "4.57", "5")
"""Releases of transformers by how they spell a module: up to 4.51, 4.52 to 4.57, and 5."""

Layout = Literal["llava", "qwen2_vl", "plain"]
"""What a family held up to 4.51: a whole causal model as `language_model` (PaliGemma, LLaVA, Gemma 3, Mistral
3, InternVL), the text under `model.layers` beside `visual` (Qwen-VL), or a language model alone."""

_VISUAL = r"visual(?=\.(?:blocks|merger|patch_embed|pos_embed|deepstack_merger_list)(?:\.|$))"

# How a path may begin, and how its id begins then. 4.52 put `model.` before every part and took it out of
# `language_model.model`; 5 took `vision_model` and `text_model` out of CLIP and SigLIP.
# `mm_projector` and the doubled vision tower are LLaVA's own repository, whose projector is an nn.Sequential.
_BEGINNINGS = tuple(
    (re.compile(rf"(?:{spelled})(?=\.|$)"), id)
    for spelled, id in (
        (r"(?:model\.)?language_model\.lm_head", "lm_head"),
        (r"(?:model\.)?language_model(?:\.model)?", "language_model"),
        (r"(?:model\.)?vision_tower(?:\.vision_tower)?(?:\.vision_model)?", "vision_tower"),
        (r"(?:model\.)?multi_modal_projector", "multi_modal_projector"),
        (r"model\.mm_projector\.0", "multi_modal_projector.linear_1"),
        (r"model\.mm_projector\.2", "multi_modal_projector.linear_2"),
        (rf"(?:model\.)?{_VISUAL}", "visual"),
        (r"text_encoder(?=\.(?:encoder\.layers|embeddings)\.)", "text_encoder.text_model"),
        (r"text_encoder_2(?=\.(?:encoder\.layers|embeddings)\.)", "text_encoder_2.text_model"),
    )
)
_TEXT = re.compile(r"model\.(?=(?:layers|embed_tokens|norm)(?:\.|$))")
_VISION = ("vision_tower.", "multi_modal_projector", "visual.", "model.mm_projector")
_VISION_LANGUAGE_BASE = re.compile(r"(?P<qwen>qwen[\d.]*[-_]?vl|qvq)|llava", re.IGNORECASE)

# What CLIP and SigLIP hold, in 4.57 under `vision_model`. InternVL's and Pixtral's towers never had it.
_CLIP = re.compile(
    r"vision_tower\.(?=(?:encoder\.layers|head|pre_layrnorm|post_layernorm"
    r"|embeddings\.(?:patch|position)_embedding)(?:\.|$))"
)
_TEXT_UP_TO_4_51 = {"llava": "language_model.model.", "qwen2_vl": "model."}
_UNDER_MODEL = re.compile(rf"(?:language_model|vision_tower|multi_modal_projector|{_VISUAL})(?=\.|$)")

_TEXT_ENCODER = re.compile(r"text_encoder(_[23])?(?=\.)")
_LANGUAGE = re.compile(r"(language_model|model\.(layers|embed_tokens)|transformer\.(h|wte|wpe))\b")
_DENOISER_PARTS = re.compile(
    r"(down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks|time_embedding|add_embedding"
    r"|conv_in|conv_out|transformer_blocks|single_transformer_blocks|double_blocks|single_blocks|joint_blocks"
    r"|blocks|time_text_embed|time_embed|patch_embed|patch_embedding|pos_embed|context_embedder|x_embedder"
    r"|condition_embedder|caption_projection|adaln_single|norm_out|proj_in|proj_out)([._]|$)"
)


def canonical_id(path: str) -> str:
    """The id of a module by its path alone, which leaves `model.layers` and unknown paths as they are."""
    for beginning, id in _BEGINNINGS:
        if found := beginning.match(path):
            return id + path[found.end() :]
    return path


def canonical_ids(paths: Iterable[str], base_model: str | None = None) -> dict[str, str]:
    """The id of each of an adapter's paths, read together, as `vision_tower.encoder.layers.0.mlp.fc1`.

    `model.layers.0` is of a language model by itself, or of the text of Qwen-VL up to transformers 4.51 or of
    LLaVA's own repository: vision modules beside it or the base's name tell, else it stays as it is.

    Args:
        paths: all of them, those of full modules too.
        base_model: the name of the base, where it is known.
    """
    ids = {path: canonical_id(path) for path in paths}
    if _named(base_model) or any(id.startswith(_VISION) for id in ids.values()):
        return {path: as_text_tower(id) for path, id in ids.items()}
    return ids


def as_text_tower(module: str) -> str:
    """The id of a bare language model's module where that model is the text tower of a larger one."""
    return _TEXT.sub("language_model.", module) if _TEXT.match(module) else module


def as_bare_text(module: str) -> str:
    """The id of a text tower's module where that tower is a language model by itself."""
    return module.replace("language_model.", "model.", 1) if is_text_tower(module) else module


def is_bare_text(module: str) -> bool:
    """Whether an id is of a language model's layers that is no part of a larger model, as far as is known."""
    return _TEXT.match(module) is not None


def is_text_tower(module: str) -> bool:
    """Whether an id is of the text tower of a larger model."""
    return module.startswith("language_model.")


def layout(modules: Iterable[str], base_model: str | None = None) -> Layout:
    """The family that an adapter's ids, and the base's name where it is known, belong to."""
    parts = {module.partition(".")[0] for module in modules}
    if "visual" in parts or (_named(base_model) == "qwen2_vl" and "language_model" in parts):
        return "qwen2_vl"
    return "llava" if parts & {"language_model", "vision_tower", "multi_modal_projector"} else "plain"


def written_path(module: str, spelling: str = "4.57", layout: Layout = "llava") -> str:
    """The path of a canonical id in one of the `SPELLINGS`; every release of peft restores that of 4.57.

    Args:
        layout: that of all the adapter's ids: up to 4.51 the text has another path in each.
    """
    if spelling != "5":
        module = _CLIP.sub("vision_tower.vision_model.", module)
    if spelling != "4.51":
        return f"model.{module}" if _UNDER_MODEL.match(module) else module
    if layout == "llava" and module == "lm_head":
        return "language_model.lm_head"
    if layout != "plain" and module.startswith("language_model."):
        return _TEXT_UP_TO_4_51[layout] + module.removeprefix("language_model.")
    return module


def target_name(module: str, spelling: str = "4.57", layout: Layout = "llava") -> str:
    """The end of a module's path that is its alone, as peft's `target_modules` is matched.

    Of all but the text it is the same in every spelling; of the text, from 4.52 on.
    """
    if spelling == "4.51" and module.startswith("language_model."):
        return written_path(module, spelling, layout)
    return _CLIP.sub("", module)


def tower(module: str) -> str:
    """The part of the model that an id belongs to.

    `language_model`, also for a language model alone; `vision_tower`, also Qwen-VL's `visual`;
    `multi_modal_projector`; `text_encoder`, `text_encoder_2`, `text_encoder_3` or `denoiser` of a diffusers
    pipeline; `other`, as of `lm_head`.
    """
    module = unflattened(module) or module
    part = module.partition(".")[0]
    if part in ("vision_tower", "multi_modal_projector"):
        return part
    if part == "visual":
        return "vision_tower"
    if found := _TEXT_ENCODER.match(module):
        return found[0]
    if _LANGUAGE.match(module):
        return "language_model"
    return "denoiser" if _DENOISER_PARTS.match(module) else "other"


def kind(module: str) -> str:
    """What a module is within its layer: `q_proj`, `fc1`; in a numbered list with the number: `to_out.0`."""
    *_, before, last = ("", *(unflattened(module) or module).split("."))
    return f"{before}.{last}" if last.isdecimal() and before else last


def _named(base_model: str | None) -> Layout | None:
    """The layout that the last part of a base's name tells, where its text may be under `model.layers`."""
    found = _VISION_LANGUAGE_BASE.search(re.split(r"[/\\]", (base_model or "").rstrip("/\\"))[-1])
    return found and ("qwen2_vl" if found["qwen"] else "llava")
