"""What a peft adapter holds besides factors: full modules and biases, told apart, read and written."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.extra import Extra, ExtraRole
from pamctl.adapters.formats.pairing import FactorPair
from pamctl.adapters.formats.peft_patterns import PREFIX
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.formats.stored import Stored
from pamctl.adapters.module_names import canonical_ids
from pamctl.adapters.tensor_file import TensorFile
from pamctl.refusal import Refusal

Spelled = Callable[[str], str]

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


@dataclass(frozen=True)
class Passing:
    """A tensor that is no factor: its name, the module it belongs to, its place there, and what it is."""

    name: str
    path: str
    leaf: str
    role: ExtraRole
    scale: float = 1.0


def passing_tensor(
    stored: Stored,
    settings: PeftSettings,
    pairs: Mapping[str, FactorPair],
    wrapper: "re.Pattern[str]",
    name: str,
) -> Passing:
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
        return Passing(name, inner, leaf, "module")
    if leaf == "bias" and settings.saves_biases:
        return Passing(name, inner, leaf, "bias")
    if leaf in ("weight", "bias") and (_is_embedding(inner) or (inner in pairs and pairs[inner].embedding)):
        return Passing(name, inner, leaf, "embedding")
    raise Refusal(
        f"{stored.file}: {name} is neither <module>.lora_A.weight or .lora_B.weight nor of a module that "
        f"{stored.settings_file.name} says is saved whole",
        "save the adapter again with peft, as a plain LoRA",
    )


def passing_extras(
    tensors: TensorFile, passing: Iterable[Passing], ids: Mapping[str, str]
) -> dict[str, Extra]:
    """What passes through, by canonical tensor id."""
    found: dict[str, Passing] = {}
    for tensor in passing:
        key = f"{ids[tensor.path]}.{tensor.leaf}"
        if key in found:
            raise Refusal(
                f"{tensors.path}: {found[key].name} and {tensor.name} are one tensor", "keep one of them"
            )
        found[key] = tensor
    return {key: _extra(tensors, tensor) for key, tensor in found.items()}


def full_modules(tensors: TensorFile) -> dict[str, Extra]:
    """The full weights of a file by canonical tensor id, to be carried along as they are."""
    passing = [Passing(name, *_split(name.removeprefix(PREFIX)), "module") for name in tensors]
    return passing_extras(tensors, passing, canonical_ids([tensor.path for tensor in passing]))


def written_extras(adapter: Adapter, path: Spelled) -> Iterator[tuple[str, Extra]]:
    """The tensors to write besides factors, by their names in the file."""
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


def _split(name: str) -> tuple[str, str]:
    """The module and the leaf of a tensor's name."""
    path, _, leaf = name.rpartition(".")
    return path, leaf


def _lora_bias(tensors: TensorFile, pair: FactorPair | None, name: str) -> Passing:
    if pair is None or tensors[name].shape != tensors[pair.b].shape[:1]:
        raise Refusal(
            f"{tensors.path}: {name} {list(tensors[name].shape)} is no bias of factors in the file",
            "save the adapter again with peft",
        )
    return Passing(name, pair.path, "lora_bias", "lora_bias", pair.scale)


def _is_embedding(path: str) -> bool:
    return path.rpartition(".")[2] in _EMBEDDINGS


def _extra(tensors: TensorFile, tensor: Passing) -> Extra:
    entry = tensors[tensor.name]
    tensors.dtype_of(tensor.name)  # refused before the numbers are asked for
    if tensor.role != "lora_bias":
        return Extra(tensor.role, entry.shape, entry.dtype, lambda: tensors.stored(tensor.name))
    scale = np.float32(tensor.scale)
    return Extra("lora_bias", entry.shape, "F32", lambda: tensors.read(tensor.name) * scale)
