"""The diffusers format, old and new: one safetensors file of `<component>.<module path>.<factor>`."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.formats.alphas import alpha_scales, named_base, without_alpha
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.peft_patterns import target_modules
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.formats.stored import Contents, Stored, parsed_settings
from pamctl.adapters.formats.written import (
    WriteOptions,
    WrittenFactors,
    factor_shapes,
    refuse_extras,
    refuse_layers,
    write_one_file,
)
from pamctl.adapters.module_names import canonical_id, tower
from pamctl.adapters.sgm_names import diffusers_paths
from pamctl.adapters.tensor_file import TensorFile
from pamctl.refusal import Refusal

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
SETTINGS_NAME = "lora_adapter_metadata"

# New: lora_A, lora_B; old: the processor's to_q_lora.down; between them lora_linear_layer.down, lora.down,
# and lora_down of trainers that keep the dots. An alpha stands beside the module or beside its first factor.
_NAME = re.compile(
    r"(?P<path>.+?)(?:"
    r"\.lora_(?P<factor>[AB])(?:\.default)?\.weight"
    r"|(?P<joint>_lora\.|\.lora\.|\.lora_linear_layer\.|\.lora_)(?P<end>down|up|mid)\.weight"
    r"|(?P<alpha_joint>_lora|\.lora|\.lora_linear_layer)?(?:\.down\.weight)?\.(?P<alpha>alpha)"
    r"|\.lora_B(?:\.default)?\.(?P<bias>bias))"
)
_OWN = re.compile(
    r"(?:unet|transformer|diffusion_model|model\.diffusion_model|transformer_2|text_encoder(?:_[23])?)\."
    r".+\.(?:lora_[AB](?:\.default)?\.weight|lora_(?:down|up)\.weight|alpha)"
    r"|.+(?:_lora|\.lora|\.lora_linear_layer)\.(?:down|up)\.weight"
    r"|(?:down_blocks|mid_block|up_blocks|transformer_blocks|single_transformer_blocks|double_blocks|single_blocks"
    r"|joint_blocks|blocks\.\d+)\..+\.lora_(?:[AB](?:\.default)?|down|up)\.weight"
)
_OF_ANOTHER_KIND = {
    r"\.dora_scale$": "DoRA rescales the base weights: save a plain LoRA",
    r"\.lora_magnitude_vector\b": "DoRA rescales the base weights: save a plain LoRA",
    r"\.hada_": "LoHa multiplies its factors element by element: train a plain LoRA",
    r"\.lokr_": "LoKr is a Kronecker product: train a plain LoRA",
    r"\.diff_b$": "it changes a bias of the base, which is no LoRA: train plain LoRA modules only",
    r"\.diff$": "it is a full difference of weights: extract a LoRA from it first",
    r"_custom_diffusion\b": "Custom Diffusion replaces weights of the base: train a plain LoRA",
    r"\.processor\.": "it is another processor than diffusers' own: convert it with its own program",
}

_DENOISER = re.compile(r"(unet|transformer|(?:model\.)?diffusion_model)\.")
_COMPONENTS_IN_IDS = ("text_encoder.", "text_encoder_2.", "text_encoder_3.", "transformer_2.")
_OLD_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
# How a denoiser's modules are called by diffusers' UNets, and by the code its authors published.
_OF_A_UNET = re.compile(r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)\b")
_AS_PUBLISHED = re.compile(
    r"(input_blocks|middle_block|output_blocks|double_blocks|single_blocks|joint_blocks)\."
    r"|blocks\.\d+\.(self|cross)_attn\."
)


@dataclass
class _Module:
    """The tensors of one module by part (A, B, mid, alpha, bias), and the module as the file spells it."""

    spelled: str
    names: dict[str, str] = field(default_factory=dict)


def recognises(stored: Stored) -> bool:
    """Whether the metadata are diffusers', or a tensor is named after a pipeline's component or processor."""
    return SETTINGS_NAME in stored.tensors.metadata or any(_OWN.fullmatch(name) for name in stored.tensors)


def read(stored: Stored) -> Contents:
    """The modules of a file, their numbers but the alphas unread.

    The scale is that of the metadata or of an alpha, and 1 where there is neither, whatever the ranks.

    Raises:
        Refusal: a tensor that is no factor of a LoRA, a factor without the other, settings that are not a
            plain LoRA's, or an alpha that is no number or contradicts them.
    """
    modules, settings = _modules(stored), _Settings(stored)
    scales = _scales(stored.tensors, modules, settings)
    pairs = {
        module: FactorPair(
            found.spelled, found.names["A"], found.names["B"], scales[module], mid=found.names.get("mid")
        )
        for module, found in modules.items()
    }
    extras = {
        f"{module}.lora_bias": _bias(stored.tensors, found, scales[module])
        for module, found in modules.items()
        if "bias" in found.names
    }
    return Contents(
        paired_modules(stored.tensors, pairs),
        named_base(stored.tensors.metadata),
        extras,
        _notes(modules.values(), settings),
        _denoiser_read(modules.values()),
    )


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse embeddings and what is no delta, for which there is no place."""
    refuse_extras(adapter, "diffusers")
    refuse_layers(adapter, "diffusers", "embedding")


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write one file in the new style, the scale folded into lora_B, with the settings that say alpha = r."""
    modules = _written_paths(adapter)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, module in modules.items():
        a, b = factor_shapes(factors.shapes[module])
        shapes |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        paths = {module: path for path, module in modules.items()}
        for module, part, values in factors.blocks(list(paths)):
            yield f"{paths[module]}.lora_{part.upper()}.weight", values

    dtypes = dict.fromkeys(shapes, factors.dtype)
    metadata = {SETTINGS_NAME: json.dumps(_written_settings(modules, factors), sort_keys=True)}
    write_one_file(adapter, draft, WEIGHTS_NAME, shapes, tensors(), dtypes, metadata)


def _modules(stored: Stored) -> dict[str, _Module]:
    """The tensors of a file by the id of their module, each module with both factors."""
    spellings = {name: _spelled(stored, name) for name in stored.tensors}
    ids = _ids({spelled for spelled, _ in spellings.values()})
    modules: dict[str, _Module] = {}
    for name, (spelled, part) in spellings.items():
        module = modules.setdefault(ids[spelled], _Module(spelled))
        if part in module.names:
            raise Refusal(
                f"{stored.file}: {module.names[part]} and {name} are one tensor", "keep one of them"
            )
        module.names[part] = name
    for module in modules.values():
        if not {"A", "B"} <= module.names.keys():
            raise Refusal(
                f"{stored.file}: of {module.spelled} there is only {', '.join(module.names.values())}",
                "fetch or save the adapter again",
            )
    return modules


def _spelled(stored: Stored, name: str) -> tuple[str, str]:
    """The module that a tensor is of, as the file spells it, and which part of it the tensor is."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise Refusal(f"{stored.file}: {name} is no factor of a plain LoRA", _way_on(name))
    part = found["factor"] or {"down": "A", "up": "B", "mid": "mid"}.get(found["end"])
    spelled = _real_path(found["path"], "_lora" in (found["joint"] or found["alpha_joint"] or ""))
    return spelled, part or found["alpha"] or found["bias"]


def _real_path(path: str, old: bool) -> str:
    """The module that a path names; `old` for one that names the projection of an attention processor."""
    path = path.replace(".processor.", ".")
    parent, _, projection = path.rpartition(".")
    if not old:
        return path
    if path.startswith("text_encoder"):
        return f"{parent}.{_OLD_PROJECTIONS.get(projection, projection)}"
    return f"{path}.0" if projection == "to_out" else path


def _ids(paths: Iterable[str]) -> dict[str, str]:
    """The canonical id of each module, read together: that of a denoiser has no component."""
    ids = {}
    for path in paths:
        found = _DENOISER.match(path)
        ids[path] = path[found.end() :] if found else canonical_id(path)
    published = diffusers_paths([id for id in ids.values() if not id.startswith(_COMPONENTS_IN_IDS)])
    return {path: published.get(id, id) for path, id in ids.items()}


def _way_on(name: str) -> str:
    for pattern, way_on in _OF_ANOTHER_KIND.items():
        if re.search(pattern, name):
            return way_on
    return "a LoRA of diffusers holds lora_A.weight and lora_B.weight or lora.down.weight and lora.up.weight"


def _scales(tensors: TensorFile, modules: Mapping[str, _Module], settings: "_Settings") -> dict[str, float]:
    alphas = {module: found.names["alpha"] for module, found in modules.items() if "alpha" in found.names}
    scales = alpha_scales(tensors, alphas, {module: found.names["A"] for module, found in modules.items()})
    for module, found in modules.items():
        shape = tensors[found.names["A"]].shape
        said = settings.scale(found.spelled, shape[0]) if shape and shape[0] else None
        if said is None:
            continue
        if module in alphas and said != scales[module]:
            raise Refusal(
                f"{tensors.path}: {alphas[module]} gives a scale of {scales[module]:g}, "
                f"the metadata {said:g}",
                "take away the one that is wrong",
            )
        scales[module] = said
    return scales


def _notes(modules: Collection[_Module], settings: "_Settings") -> tuple[str, ...]:
    """What of the scales is told for some modules only, or for a component of which there are none."""
    untold = [module for module in modules if settings.of(module.spelled) is None]
    without = sum("alpha" not in module.names for module in untold)
    notes = without_alpha(without, len(modules)) if without < len(untold) else ()
    for component in settings.components:
        if component and not any(module.spelled.startswith(f"{component}.") for module in modules):
            notes += (f"{SETTINGS_NAME} tells of {component}, of which the file holds no module",)
    return notes


@dataclass(frozen=True)
class _Settings:
    """The LoraConfig in the metadata: one of each component, or one of the model where a model was saved."""

    stored: Stored

    def scale(self, spelled: str, rank: int) -> float | None:
        """The scale of a module, or None where nothing is said about its component."""
        settings = self.of(spelled)
        path = spelled if "" in self.components else spelled.partition(".")[2]
        return settings.scale(path, rank) if settings else None

    def of(self, spelled: str) -> PeftSettings | None:
        """What is said about a module's component."""
        return self.components.get("") or self.components.get(spelled.partition(".")[0])

    @cached_property
    def components(self) -> dict[str, PeftSettings]:
        text = self.stored.tensors.metadata.get(SETTINGS_NAME)
        if text is None:
            return {}
        place = f"{self.stored.file}: {SETTINGS_NAME}"
        fields: dict[str, dict[str, Any]] = {}
        for name, value in parsed_settings(text, place).items():
            component, _, key = name.rpartition(".")
            fields.setdefault(component, {"peft_type": "LORA"})[key] = value
        return {component: PeftSettings(self.stored.file, found) for component, found in fields.items()}


def _bias(tensors: TensorFile, module: _Module, scale: float) -> Extra:
    """The bias of lora_B, to which the scale applies too."""
    name = module.names["bias"]
    shape, outputs = tensors[name].shape, tensors[module.names["B"]].shape[:1]
    tensors.dtype_of(name)  # refused before the numbers are asked for
    if shape != outputs:
        raise Refusal(
            f"{tensors.path}: {name} {list(shape)} is no bias of factors with {list(outputs)} outputs",
            "save the adapter again with diffusers",
        )
    return Extra("lora_bias", shape, "F32", lambda: tensors.read(name) * np.float32(scale))


def _denoiser_read(modules: Iterable[_Module]) -> str | None:
    """The one component that a file's ids without one are of."""
    found = {
        match[1].removeprefix("model.") for module in modules if (match := _DENOISER.match(module.spelled))
    }
    return found.pop() if len(found) == 1 else None


def _written_paths(adapter: Adapter) -> dict[str, str]:
    """Path in the file -> module, in the order of the file."""
    rest = [module for module in adapter.shapes if not module.startswith(_COMPONENTS_IN_IDS)]
    prefixes = dict.fromkeys(rest, f"{_denoiser(adapter.denoiser, rest)}.")
    return dict(sorted((prefixes.get(module, "") + module, module) for module in adapter.shapes))


def _denoiser(read: str | None, modules: Sequence[str]) -> str:
    """The component to write modules under: the pipeline's as it was read, else told by the names.

    Under `diffusion_model`, which is no pipeline's, stand diffusers' names too, which it loads as its own.
    """
    if read in ("unet", "transformer"):
        return read
    if any(_AS_PUBLISHED.match(module) for module in modules):
        return "diffusion_model"
    if any(_OF_A_UNET.match(module) for module in modules):
        return "unet"
    known = read is None or any(tower(module) == "denoiser" for module in modules)
    return "transformer" if known else "diffusion_model"


def _written_settings(modules: Mapping[str, str], factors: WrittenFactors) -> dict[str, Any]:
    """LoraConfig's fields of each component, under which every module has alpha = rank."""
    fields: dict[str, Any] = {}
    rank = factors.adapter.rank
    for component in sorted({path.partition(".")[0] for path in modules}):
        targets = {}
        for path, module in modules.items():
            if path.startswith(f"{component}."):
                # CLIP's text_model is in the path or not, as the release of transformers has it
                target = path.removeprefix(f"{component}.").removeprefix("text_model.")
                targets[target] = factors.shapes[module].rank
        anchor = "" if component.startswith("text_encoder") else "^"
        ranks = {anchor + re.escape(target): own for target, own in targets.items() if own != rank}
        settings = {
            "alpha_pattern": ranks,
            "lora_alpha": rank,
            "lora_bias": False,
            "r": rank,
            "rank_pattern": ranks,
            "target_modules": target_modules(list(targets)),
            "use_dora": False,
            "use_rslora": False,
        }
        fields |= {f"{component}.{name}": value for name, value in settings.items()}
    return fields
