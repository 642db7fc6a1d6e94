"""The kohya format: one safetensors file of `lora_<component>_<module path with _ for .>.<factor>`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats.alphas import alpha_scales, named_base, without_alpha
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.stored import Contents, Stored
from pamctl.adapters.formats.written import (
    WriteOptions,
    WrittenFactors,
    factor_shapes,
    refuse_extras,
    refuse_layers,
    write_one_file,
)
from pamctl.adapters.sgm_names import diffusers_paths
from pamctl.refusal import Refusal

WEIGHTS_NAME = "lora.safetensors"
"""The file in a folder that pamctl writes; a file of any name is read."""

_NAME = re.compile(r"(?P<module>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|lora_mid\.weight|alpha)")
_PREFIXES = ("lora_", "lycoris_", "oft_")
_OF_ANOTHER_KIND = {
    "dora_scale": "DoRA rescales the base weights: train without it",
    "hada_": "LoHa multiplies its factors element by element: train a plain LoRA",
    "lokr_": "LoKr is a Kronecker product: train a plain LoRA",
    "oft_": "OFT rotates the base weights: train a plain LoRA",
    "on_input": "(IA)³ rescales the base weights: train a plain LoRA",
    "w_norm": "it changes a norm of the base, which is no LoRA: train without train_norm",
    "b_norm": "it changes a norm of the base, which is no LoRA: train without train_norm",
    "diff_b": "it changes a bias of the base, which is no LoRA: train plain LoRA modules only",
    "diff": "it is a full difference of weights: extract a LoRA from it first",
}

# How a name may begin, and how its id begins then: the denoiser has no name in an id, a text encoder has; the
# towers of vision-language models are those of module_names in all three generations, with `_` for `.`.
_BEGINNINGS = tuple(
    (re.compile(spelled), id)
    for spelled, id in (
        (r"lora_unet_|lora_transformer_(?!h_|wte$|wpe$)", ""),
        (r"lora_te1?_", "text_encoder."),
        (r"lora_te([23])_", r"text_encoder_\1."),
        (r"(?:lora|lycoris)_(?:model_)?(?:language_model_)?lm_head$", "lm_head"),
        (r"(?:lora|lycoris)_(?:model_)?language_model_(?:model_)?", "language_model."),
        (r"(?:lora|lycoris)_(?:model_)?vision_tower_(?:vision_tower_)?(?:vision_model_)?", "vision_tower."),
        (r"(?:lora|lycoris)_(?:model_)?multi_modal_projector_", "multi_modal_projector."),
        (r"(?:lora|lycoris)_(?:model_)?visual_", "visual."),
        (r"(?:lora|lycoris)_", ""),
    )
)
_CLIP = re.compile(r"(text_encoder(?:_[23])?\.)(?=encoder_layers_|embeddings_)")
_TEXT = re.compile(r"model_(?=layers_|embed_tokens$|norm$)")
_VISION = ("vision_tower.", "multi_modal_projector.", "visual.")
_WITHOUT_COMPONENT = (
    "language_model_",
    "vision_tower_",
    "multi_modal_projector_",
    "lm_head",
    "model_",
    "visual_",
    "transformer_h_",
)


def recognises(stored: Stored) -> bool:
    """Whether the tensors are named after flattened paths with a prefix of kohya's or LyCORIS'."""
    return any(name.startswith(_PREFIXES) and "." in name for name in stored.tensors)


def read(stored: Stored) -> Contents:
    """The modules of a file, their numbers but the alphas unread; their ids stay flattened.

    Raises:
        Refusal: a tensor that is no factor of a LoRA, a factor without the other, an alpha that is no number.
    """
    tensors = stored.tensors
    parts: dict[str, dict[str, str]] = {}
    for name in tensors:
        found = _NAME.fullmatch(name)
        if found is None:
            raise Refusal(f"{stored.file}: {name} is no factor of a plain LoRA", _way_on(name))
        parts.setdefault(found["module"], {})[found["part"].removesuffix(".weight")] = name
    for module, names in parts.items():
        if not {"lora_down", "lora_up"} <= names.keys():
            raise Refusal(
                f"{stored.file}: of {module} there is only {', '.join(names)}", "fetch or save it again"
            )
    alphas = {module: names["alpha"] for module, names in parts.items() if "alpha" in names}
    scales = alpha_scales(tensors, alphas, {module: names["lora_down"] for module, names in parts.items()})
    pairs: dict[str, FactorPair] = {}
    ids = _ids(parts)
    for module, names in parts.items():
        id = ids[module]
        if id in pairs:
            raise Refusal(f"{stored.file}: {module} and {pairs[id].path} are one module", "keep one of them")
        pairs[id] = FactorPair(
            module, names["lora_down"], names["lora_up"], scales[module], mid=names.get("lora_mid")
        )
    return Contents(
        paired_modules(tensors, pairs),
        named_base(tensors.metadata),
        notes=without_alpha(len(parts) - len(alphas), len(parts)),
    )


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse embeddings and what is no delta, which have no place, and ids that flatten to one name."""
    refuse_extras(adapter, "kohya")
    refuse_layers(adapter, "kohya", "embedding")
    _written_names(adapter)


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write one file with alpha = rank in every module and the scale folded into lora_up.

    The blocks of a UNet have diffusers' names, which diffusers and ComfyUI read, also where they were read by
    those of SGM's layout. Under these diffusers 0.42 overlooks kohya's add_embedding_linear_1 and _2.
    Of modules with ranks of their own, as `options.compact` keeps them, diffusers 0.42 overlooks the alphas.
    """
    modules = _written_names(adapter)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in modules.items():
        down, up = factor_shapes(factors.shapes[module])
        shapes |= {f"{name}.alpha": (), f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    # an alpha in half precision would not hold every rank
    dtypes = {name: "F32" if name.endswith(".alpha") else factors.dtype for name in shapes}

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        names = {module: name for name, module in modules.items()}
        begun = None
        for module, part, values in factors.blocks(list(names)):
            if module != begun:
                begun = module
                yield f"{names[module]}.alpha", np.array(factors.shapes[module].rank, np.float32)
            yield f"{names[module]}.lora_{'down' if part == 'a' else 'up'}.weight", values

    write_one_file(adapter, draft, WEIGHTS_NAME, shapes, tensors(), dtypes, _metadata(adapter, factors))


def _ids(modules: Iterable[str]) -> dict[str, str]:
    """The id of each of a file's modules, read together as `module_names.canonical_ids` does."""
    ids = {module: _id(module) for module in modules}
    published = diffusers_paths([id for id in ids.values() if "." not in id])
    ids = {module: published.get(id, id) for module, id in ids.items()}
    if any(id.startswith(_VISION) for id in ids.values()):
        return {module: _TEXT.sub("language_model.", id, count=1) for module, id in ids.items()}
    return ids


def _id(module: str) -> str:
    for beginning, id in _BEGINNINGS:
        if found := beginning.match(module):
            # transformers 5 takes CLIP's text_model out of the path
            return _CLIP.sub(r"\1text_model_", found.expand(id) + module[found.end() :])
    return module


def _way_on(name: str) -> str:
    for part, way_on in _OF_ANOTHER_KIND.items():
        if f".{part}" in name:
            return way_on
    return (
        "a LoRA of kohya's holds lora_down.weight, lora_up.weight, lora_mid.weight and alpha: save it as one"
    )


def _written_names(adapter: Adapter) -> dict[str, str]:
    """Name in the file -> module, in the order of the file."""
    several = any(module.startswith(("text_encoder_2.", "text_encoder_3.")) for module in adapter.shapes)
    names: dict[str, str] = {}
    for module in adapter.shapes:
        name = _written_name(module, "lora_te1_" if several else "lora_te_")
        if name in names:
            raise Refusal(
                f"{module} and {names[name]} of {adapter.name} are both {name} in kohya's spelling",
                "write it as peft, which tells them apart",
            )
        names[name] = module
    return dict(sorted(names.items()))


def _written_name(module: str, first_text_encoder: str) -> str:
    component, _, path = module.partition(".")
    prefixes = {
        "text_encoder": first_text_encoder,
        "text_encoder_2": "lora_te2_",
        "text_encoder_3": "lora_te3_",
    }
    if component in prefixes:
        return prefixes[component] + path.replace(".", "_")
    flattened = module.replace(".", "_")
    return ("lora_" if flattened.startswith(_WITHOUT_COMPONENT) else "lora_unet_") + flattened


def _metadata(adapter: Adapter, factors: WrittenFactors) -> dict[str, str]:
    ranks = {shape.rank for shape in factors.shapes.values()}
    rank = str(adapter.rank) if len(ranks) == 1 else "Dynamic"
    return {"ss_network_alpha": rank, "ss_network_dim": rank, "ss_network_module": "networks.lora"}
