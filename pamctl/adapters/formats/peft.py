"""The PEFT format: `adapter_config.json` beside `adapter_model.safetensors`."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter, Extra, ExtraRole
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.peft_patterns import target_modules
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.formats.stored import Contents, Stored
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors
from pamctl.adapters.module_names import canonical_ids, layout, target_name, written_path
from pamctl.adapters.provenance import public_name
from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.adapters.sources import CONFIG_NAME
from pamctl.adapters.tensor_file import DTYPES, TensorFile
from pamctl.refusal import Refusal

PREFIX = "base_model.model."
Spelled = Callable[[str], str]
WEIGHTS_NAME = "adapter_model.safetensors"

# A raw dump of the state dict has the adapter's name, as `default`, within or at the end.
_FACTOR = re.compile(
    r"(?P<path>.+)\.(lora_(?P<factor>[AB])(\.(?P<name>[^.]+))?\.weight"
    r"|lora_embedding_(?P<embedding>[AB])(\.(?P<embedding_name>[^.]+))?)"
)
_LORA_BIAS = re.compile(r"(?P<path>.+)\.lora_B(\.[^.]+)?")
# What `get_input_embeddings` and `get_output_embeddings` give: saved whole once they have been resized.
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "tok_embeddings")
_OF_ANOTHER_KIND = {
    "lora_magnitude_vector": "DoRA rescales the base weights: save a plain LoRA",
    "lora_E": "AdaLoRA puts a diagonal between the factors: save a plain LoRA",
    "lora_diag": "KaSA puts a diagonal between the factors: save a plain LoRA",
    "hada_w": "LoHa multiplies its factors element by element: train a plain LoRA",
    "lokr_w": "LoKr is a Kronecker product: train a plain LoRA",
    "original_module": "it is the base's own weight, in a raw dump: save the adapter with peft",
    "trainable_tokens": "single rows of an embedding are not supported: save without trainable_token_indices",
}


def recognises(stored: Stored) -> bool:
    """Whether the settings or the names of the tensors are peft's."""
    return "peft_type" in stored.settings or any(name.startswith(PREFIX) for name in stored.tensors)


def read(stored: Stored) -> Contents:
    """The modules of a PEFT folder, their numbers unread, and what passes through.

    Full modules, base biases and biases of lora_B are carried along as they are.

    Raises:
        Refusal: a config field, a tensor name or a shape says it is not a plain LoRA, or a file is damaged.
    """
    if not stored.settings:
        raise Refusal(
            f"{stored.folder} holds no {CONFIG_NAME}",
            f"put it beside {stored.file.name}: without it the scale of a peft adapter is unknown",
        )
    settings = PeftSettings(stored.settings_file, stored.settings)
    factors, others, name = _sorted_out(stored.tensors)
    pairs = {path: _pair(stored, settings, path, names) for path, names in factors.items()}
    wrapper = re.compile(rf"\.modules_to_save(\.{re.escape(name)})?(?=\.|$)")
    passing = [_passing(stored, settings, pairs, wrapper, other) for other in others]
    ids = canonical_ids([*pairs, *(tensor.path for tensor in passing)], settings.base_model)
    modules: dict[str, FactorPair] = {}
    for path, pair in pairs.items():
        if ids[path] in modules:
            raise Refusal(
                f"{stored.file}: {path} and {modules[ids[path]].path} are one module", "keep one of them"
            )
        modules[ids[path]] = pair
    return Contents(
        paired_modules(stored.tensors, modules), settings.base_model, _extras(stored.tensors, passing, ids)
    )


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse the few combinations that peft does not load, such as come about by merging."""
    biases = [name for name, extra in adapter.extras.items() if extra.role == "lora_bias"]
    for module, shape in adapter.shapes.items():
        if biases and shape.layer.kind == "embedding":
            raise Refusal(
                f"{adapter.name} adapts the embedding {module} and carries {biases[0]}: peft has no "
                "biases of lora_B where embeddings are adapted",
                "merge adapters that have the one or the other",
            )
    for name, extra in adapter.extras.items():
        if extra.role == "module" and name.rpartition(".")[0] in adapter.shapes:
            raise Refusal(
                f"{adapter.name} both adapts the module of {name} and replaces that tensor whole",
                "leave one of them out: peft knows a module as the one or the other",
            )


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write a folder with alpha = r and the scale folded into B.

    With the spelling of transformers 4.57, which is the default, every release of peft restores it. Ranks of
    their own are told by `rank_pattern` and `alpha_pattern`. Equal adapters give equal bytes.
    """
    family = layout((*adapter.shapes, *adapter.extras), adapter.base_model)
    path = partial(written_path, spelling=options.spelling, layout=family)
    refuse_unwritable(adapter, options)
    order = sorted(adapter.shapes, key=path)
    shapes: dict[str, tuple[int, ...]] = {}
    for module in order:
        shape = factors.shapes[module]
        kernel, name = shape.layer.kernel, _names(module, adapter, path)
        channels = shape.inputs // int(np.prod(kernel, dtype=int))
        shapes[name["A"]] = (shape.rank, channels, *kernel)
        shapes[name["B"]] = (shape.outputs, shape.rank, *(1 for _ in kernel))
    extras = dict(_written_extras(adapter, path))
    dtypes = dict.fromkeys(shapes, factors.dtype) | {name: extra.dtype for name, extra in extras.items()}
    shapes |= {name: extra.shape for name, extra in extras.items()}

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        for module in order:
            name = _names(module, adapter, path)
            a, b = factors[module]
            yield name["A"], a.reshape(shapes[name["A"]])
            yield name["B"], b.reshape(shapes[name["B"]])
        for name_of_extra, extra in extras.items():
            yield name_of_extra, extra.read()

    write_safetensors(draft / WEIGHTS_NAME, shapes, tensors(), dtypes)
    target = partial(target_name, spelling=options.spelling, layout=family)
    config = json.dumps(_config(adapter, factors, target), indent=2, ensure_ascii=False)
    (draft / CONFIG_NAME).write_text(config + "\n", encoding="utf-8")


def full_modules(tensors: TensorFile, names: Iterable[str]) -> dict[str, Extra]:
    """Full weights by canonical tensor id, to be carried along as they are."""
    passing = [_Passing(name, *_split(name.removeprefix(PREFIX)), "module") for name in names]
    return _extras(tensors, passing, canonical_ids([tensor.path for tensor in passing]))


@dataclass(frozen=True)
class _Passing:
    """A tensor that is no factor: its name, the module it belongs to, its place there, and what it is."""

    name: str
    path: str
    leaf: str
    role: ExtraRole
    scale: float = 1.0


def _split(name: str) -> tuple[str, str]:
    """The module and the leaf of a tensor's name."""
    path, _, leaf = name.rpartition(".")
    return path, leaf


def _sorted_out(tensors: TensorFile) -> tuple[dict[str, dict[str, str]], list[str], str]:
    """The names of the factors by module path and kind, all other names, and the adapter's own name."""
    factors: dict[str, dict[str, str]] = {}
    others = []
    dumped: set[str | None] = set()
    for name in tensors:
        found = _FACTOR.fullmatch(name.removeprefix(PREFIX))
        if found is None:
            others.append(name)
            continue
        kind = found["factor"] or f"embedding_{found['embedding']}"
        dumped.add(found["name"] or found["embedding_name"])
        pair = factors.setdefault(found["path"], {})
        if kind in pair:
            raise Refusal(f"{tensors.path}: {pair[kind]} and {name} are one tensor", "keep one of them")
        pair[kind] = name
    if len(dumped) > 1:
        names = ", ".join(sorted(name or "one without a name" for name in dumped))
        raise Refusal(f"{tensors.path} holds several adapters: {names}", "save each on its own with peft")
    return factors, others, (dumped.pop() if dumped else None) or "default"


def _pair(stored: Stored, settings: PeftSettings, path: str, names: Mapping[str, str]) -> FactorPair:
    embedding = any(kind.startswith("embedding") for kind in names)
    a, b = (names.get(f"embedding_{factor}" if embedding else factor) for factor in "AB")
    if a is None or b is None or len(names) != 2:
        present = ", ".join(name.rsplit(f"{path}.")[-1] for name in names.values())
        fault = (
            f"there is only {present}" if len(names) == 1 else f"there are factors of another kind: {present}"
        )
        raise Refusal(f"{stored.file}: of {path} {fault}", "save the adapter again with peft")
    shape = stored.tensors[a].shape
    rank = shape[0] if shape else 0
    return FactorPair(path, a, b, settings.scale(path, rank) if rank else 1.0, embedding=embedding)


def _passing(
    stored: Stored,
    settings: PeftSettings,
    pairs: Mapping[str, FactorPair],
    wrapper: "re.Pattern[str]",
    name: str,
) -> _Passing:
    """What a tensor that is no factor is for.

    Args:
        wrapper: what older releases and raw dumps have in the name of a module that is saved whole.

    Raises:
        Refusal: it belongs to another kind of adapter, or nothing says what it is for.
    """
    for part, way_on in _OF_ANOTHER_KIND.items():
        if part in name:
            raise Refusal(f"{stored.file}: {name} is no factor of a plain LoRA", way_on)
    path, leaf = _split(name.removeprefix(PREFIX))
    if leaf == "bias" and (found := _LORA_BIAS.fullmatch(path)):
        return _lora_bias(stored.tensors, pairs.get(found["path"]), name)
    inner = wrapper.sub("", path).removesuffix(".base_layer")
    if inner not in pairs and (wrapper.search(path) or settings.saves_whole(path)):
        return _Passing(name, inner, leaf, "module")
    if leaf == "bias" and settings.saves_biases:
        return _Passing(name, inner, leaf, "bias")
    if leaf in ("weight", "bias") and (_is_embedding(inner) or (inner in pairs and pairs[inner].embedding)):
        return _Passing(name, inner, leaf, "embedding")
    raise Refusal(
        f"{stored.file}: {name} is neither <module>.lora_A.weight or .lora_B.weight nor of a module that "
        f"{stored.settings_file.name} says is saved whole",
        "save the adapter again with peft, as a plain LoRA",
    )


def _lora_bias(tensors: TensorFile, pair: FactorPair | None, name: str) -> _Passing:
    if pair is None or tensors[name].shape != tensors[pair.b].shape[:1]:
        raise Refusal(
            f"{tensors.path}: {name} {list(tensors[name].shape)} is no bias of factors in the file",
            "save the adapter again with peft",
        )
    return _Passing(name, pair.path, "lora_bias", "lora_bias", pair.scale)


def _is_embedding(path: str) -> bool:
    return path.rpartition(".")[2] in _EMBEDDINGS


def _extras(tensors: TensorFile, passing: Iterable[_Passing], ids: Mapping[str, str]) -> dict[str, Extra]:
    """What passes through, by canonical tensor id."""
    found: dict[str, _Passing] = {}
    for tensor in passing:
        key = f"{ids[tensor.path]}.{tensor.leaf}"
        if key in found:
            raise Refusal(
                f"{tensors.path}: {found[key].name} and {tensor.name} are one tensor", "keep one of them"
            )
        found[key] = tensor
    return {key: _extra(tensors, tensor) for key, tensor in found.items()}


def _extra(tensors: TensorFile, tensor: _Passing) -> Extra:
    entry = tensors[tensor.name]
    if entry.dtype not in DTYPES:
        raise Refusal(
            f"{tensors.path}: {tensor.name} is {entry.dtype}", f"convert it to one of {', '.join(DTYPES)}"
        )
    if tensor.role != "lora_bias":
        return Extra(tensor.role, entry.shape, entry.dtype, lambda: tensors.stored(tensor.name))
    scale = np.float32(tensor.scale)
    return Extra("lora_bias", entry.shape, "F32", lambda: tensors.read(tensor.name) * scale)


def _names(module: str, adapter: Adapter, path: Spelled) -> dict[str, str]:
    key = PREFIX + path(module)
    if adapter.shapes[module].layer.kind == "embedding":
        return {factor: f"{key}.lora_embedding_{factor}" for factor in "AB"}
    return {factor: f"{key}.lora_{factor}.weight" for factor in "AB"}


def _written_extras(adapter: Adapter, path: Spelled) -> Iterator[tuple[str, Extra]]:
    biased = {name.rpartition(".")[0] for name, extra in adapter.extras.items() if extra.role == "lora_bias"}
    for name, extra in adapter.extras.items():
        module, _, leaf = name.rpartition(".")
        key = PREFIX + path(module)
        if extra.role == "lora_bias":
            yield f"{key}.lora_B.bias", extra
        else:
            yield f"{key}.base_layer.{leaf}" if module in adapter.shapes else f"{key}.{leaf}", extra
    for module, shape in adapter.shapes.items():
        # with lora_bias peft looks for a bias in every module
        if biased and module not in biased and shape.layer.kind != "embedding":
            zeros = np.zeros(shape.outputs, np.float32)
            key = f"{PREFIX}{path(module)}.lora_B.bias"
            yield key, Extra("lora_bias", zeros.shape, "F32", zeros.copy)


def _config(adapter: Adapter, factors: WrittenFactors, target: Spelled) -> dict[str, Any]:
    ranks = _rank_pattern({module: shape.rank for module, shape in factors.shapes.items()}, target)
    roles = {name.rpartition(".")[0]: extra.role for name, extra in adapter.extras.items()}
    whole = _outermost([module for module, role in roles.items() if role == "module"])
    biased = {module for module, role in roles.items() if role == "bias"}
    return {
        "alpha_pattern": ranks,
        "base_model_name_or_path": adapter.base_model and public_name(adapter.base_model),
        "bias": ("lora_only" if biased <= adapter.shapes.keys() else "all") if biased else "none",
        "fan_in_fan_out": _fan_in_fan_out(adapter),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.rank,
        "lora_bias": "lora_bias" in roles.values(),
        "lora_dropout": 0.0,
        "modules_to_save": [target(module) for module in whole] or None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": ranks,
        "target_modules": target_modules([target(module) for module in adapter.shapes]),
        "task_type": _task_type(adapter),
        "use_dora": False,
        "use_rslora": False,
    }


def _outermost(modules: list[str]) -> list[str]:
    """The modules less those that lie in another, which peft saves with it."""
    return [module for module in modules if not any(module.startswith(f"{other}.") for other in modules)]


def _rank_pattern(ranks: Mapping[str, int], target: Spelled) -> dict[str, int]:
    """The ranks that differ from the largest, by patterns of which peft takes the first that matches.

    Where one module's name is the end of another's, the longer comes first, even at the largest rank.
    """
    named = {f".{target(module)}": rank for module, rank in ranks.items()}
    smaller = tuple(name for name, rank in named.items() if rank < max(ranks.values()))
    patterned = sorted(
        filter(lambda name: name.endswith(smaller), named), key=lambda name: (-len(name), name)
    )
    return {re.escape(name[1:]): named[name] for name in patterned}


def _task_type(adapter: Adapter) -> str | None:
    """peft's kind of model: that of the config read, else by whether a language model is adapted."""
    if adapter.origin and adapter.origin.format == "peft":
        said = adapter.origin.settings.get("task_type")
        return said if isinstance(said, str) else None
    generates = any(module.startswith(("language_model.", "model.layers.")) for module in adapter.shapes)
    return "CAUSAL_LM" if generates else None


def _fan_in_fan_out(adapter: Adapter) -> bool:
    """Whether the base stores weights (in, out), as the config read says; without it peft says so itself."""
    return bool(adapter.origin and adapter.origin.settings.get("fan_in_fan_out") is True)
