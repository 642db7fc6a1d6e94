"""Every spelling of a module path and the one id it stands for."""

import re
from collections.abc import Iterable

# transformers < 4.52: language_model.model.layers, vision_tower.vision_model; 4.52 to 4.57: under `model.`,
# the inner `.model.` gone; 5.x: `vision_model.` gone too.
_TOWERS = (
    (re.compile(r"(?:model\.)?language_model\.(?:model\.)?(?=layers\.)"), "language_model."),
    (re.compile(r"(?:model\.)?vision_tower\.vision_model\.|model\.vision_tower\."), "vision_tower."),
    (re.compile(r"model\.multi_modal_projector\b"), "multi_modal_projector"),
    (re.compile(r"(?:model\.)?language_model\.lm_head$"), "lm_head"),
)
SPELLINGS = ("4.51", "4.57", "5")
"""Releases of transformers by how they spell a module: up to 4.51, 4.52 to 4.57, and 5."""

_SIGLIP = ("vision_tower.encoder.layers.", "vision_tower.head.")


def canonical_id(path: str) -> str:
    """The id of the module that a checkpoint spells `path`, as `vision_tower.encoder.layers.0.mlp.fc1`.

    All three generations of the PaliGemma (and LLaVA, Gemma 3) layout give the same id; other paths are their
    own id.
    """
    for spelling, tower in _TOWERS:
        if found := spelling.match(path):
            return tower + path[found.end() :]
    return path


def canonical_ids(paths: Iterable[str], base_model: str | None = None) -> dict[str, str]:
    """The id of each of an adapter's paths, read together: some spellings are told by their company.

    Args:
        base_model: the name of the base, where it is known.
    """
    return {path: canonical_id(path) for path in paths}


def written_path(module: str, spelling: str = "4.57") -> str:
    """The path of a canonical id in the transformers 4.57 spelling, which every release of peft restores."""
    if module.startswith(_SIGLIP):
        return "model.vision_tower.vision_model." + module.removeprefix("vision_tower.")
    if module.startswith(("language_model.", "vision_tower.", "multi_modal_projector")):
        return "model." + module
    return module


def target_name(module: str, spelling: str = "4.57") -> str:
    """The end of the module's path that every spelling shares, as peft's `target_modules` is matched."""
    return module.removeprefix("vision_tower.") if module.startswith(_SIGLIP) else module


def tower(module: str) -> str:
    """The part of the model: `language_model`, `vision_tower`, `multi_modal_projector` or `other`."""
    first = module.split(".", 1)[0]
    return first if first in ("language_model", "vision_tower", "multi_modal_projector") else "other"


def kind(module: str) -> str:
    """What a module is within its layer: `q_proj`, `fc1`, `linear`."""
    return module.rsplit(".", 1)[-1]
