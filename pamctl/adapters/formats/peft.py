"""The PEFT format: `adapter_config.json` beside `adapter_model.safetensors`."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pamctl.adapters.adapter import Adapter, ComputedModules, Float32, LoraFactors, ModuleShape
from pamctl.adapters.module_names import canonical_id, target_name, written_path
from pamctl.adapters.provenance import public_name
from pamctl.adapters.safetensors_file import DTYPES, TensorEntry, read_header, read_tensor, write_safetensors
from pamctl.adapters.sources import CONFIG_NAME, WEIGHTS_NAME, AdapterSource
from pamctl.refusal import Refusal

PREFIX = "base_model.model."
PEFT_DEFAULT_RANK = PEFT_DEFAULT_ALPHA = 8

# Fields with which the delta is no longer scale · B @ A on the base as published, by what to do about them.
_CHANGES_THE_DELTA = {
    "use_dora": "DoRA rescales the base weights: save a plain LoRA",
    "lora_bias": "a bias in lora_B is not a LoRA delta: train without lora_bias",
    "bias": "it carries base biases: train with bias='none'",
    "modules_to_save": "it carries full modules: save it without modules_to_save",
    "trainable_token_indices": "it carries token embeddings: train without trainable_token_indices",
    "target_parameters": "factors of whole parameters are not supported: target modules instead",
    "fan_in_fan_out": "it is transposed on use: convert it to linear layers",
    "layer_replication": "it belongs to a base with repeated layers",
    "alora_invocation_tokens": "it acts after certain tokens only (aLoRA): save a plain LoRA",
    "use_qalora": "QA-LoRA pools its input: save a plain LoRA",
    "use_bdlora": "block-diagonal factors are not plain factors: save a plain LoRA",
    "kasa_config": "KaSA puts a diagonal between the factors: save a plain LoRA",
    "arrow_config": "Arrow routes between adapters: save a plain LoRA",
}
_KNOWN_FIELDS = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
    "velora_config",
}
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
_TENSOR_NAME = re.compile(rf"{re.escape(PREFIX)}(?P<path>.+)\.lora_(?P<factor>[AB])\.weight")


@dataclass(frozen=True)
class _Module:
    path: str
    a: str
    b: str
    shape: ModuleShape
    scale: float


def read(source: AdapterSource) -> tuple[ComputedModules, str | None]:
    """The modules of a PEFT folder, their numbers unread, and the base model its config names.

    Raises:
        Refusal: a config field, a tensor name or a shape says it is not a plain LoRA, or a file is damaged.
    """
    config = _read_config(source.config)
    entries = read_header(source.weights)
    modules = _modules(source, config, entries)

    def factors(module: str) -> LoraFactors:
        found = modules[module]
        a, b = (read_tensor(source.weights, name, entries[name]) for name in (found.a, found.b))
        return LoraFactors(a, b, found.scale)

    base_model = config.get("base_model_name_or_path")
    shapes = {module: found.shape for module, found in modules.items()}
    return ComputedModules(shapes, factors), base_model if isinstance(base_model, str) else None


def write(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as float32 with alpha = r, the scale folded into B and one zero-padded rank.

    The keys are in the transformers 4.57 spelling, which every release of peft restores. Equal adapters give
    equal bytes.
    """
    rank = adapter.rank
    order = sorted(adapter.shapes, key=written_path)
    shapes: dict[str, tuple[int, ...]] = {}
    for module in order:
        key = PREFIX + written_path(module)
        shapes[f"{key}.lora_A.weight"] = (rank, adapter.shapes[module].inputs)
        shapes[f"{key}.lora_B.weight"] = (adapter.shapes[module].outputs, rank)
    write_safetensors(folder / WEIGHTS_NAME, shapes, _tensors(adapter, order, rank))
    config = json.dumps(_config(adapter), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG_NAME).write_text(config + "\n", encoding="utf-8")


def _tensors(adapter: Adapter, order: list[str], rank: int) -> Iterator[tuple[str, Float32]]:
    for module in order:
        key = PREFIX + written_path(module)
        factors = adapter.modules[module].folded()
        missing = rank - factors.rank
        yield f"{key}.lora_A.weight", np.pad(factors.a, ((0, missing), (0, 0))) if missing else factors.a
        yield f"{key}.lora_B.weight", np.pad(factors.b, ((0, 0), (0, missing))) if missing else factors.b


def _config(adapter: Adapter) -> dict[str, Any]:
    return {
        "base_model_name_or_path": adapter.base_model and public_name(adapter.base_model),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "target_modules": [target_name(module) for module in adapter.shapes],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise Refusal(f"{file} is not JSON: {fault}", "fetch or write the adapter again") from fault
    if not isinstance(config, dict):
        raise Refusal(f"{file} does not hold an object", "fetch or write the adapter again")
    if config.get("peft_type") != "LORA":
        raise Refusal(f"{file}: peft_type is {config.get('peft_type')!r}", "only peft_type LORA can be used")
    for field, value in config.items():
        if not value or value == "none":
            continue
        if field in _CHANGES_THE_DELTA:
            raise Refusal(f"{file}: {field} is {value!r}", _CHANGES_THE_DELTA[field])
        if field not in _KNOWN_FIELDS:
            raise Refusal(
                f"{file}: {field} is {value!r}: an unknown field, which may change the delta",
                f"remove {field} from the config if it only concerns training",
            )
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        raise Refusal(
            f"{file}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base weights",
            "save it with peft's path_initial_model_for_weight_conversion, which gives a plain LoRA",
        )
    return config


def _modules(
    source: AdapterSource, config: Mapping[str, Any], entries: Mapping[str, TensorEntry]
) -> dict[str, _Module]:
    pairs: dict[str, dict[str, str]] = {}
    for name in entries:
        found = _TENSOR_NAME.fullmatch(name)
        if found is None:
            raise Refusal(
                f"{source.weights}: {name} is not {PREFIX}<module>.lora_A.weight or .lora_B.weight",
                "save the adapter again with peft, as a plain LoRA",
            )
        pairs.setdefault(found["path"], {})[found["factor"]] = name
    if not pairs:
        raise Refusal(f"{source.weights} holds no tensors", "give an adapter that adapts something")
    modules: dict[str, _Module] = {}
    for path, factors in pairs.items():
        module = canonical_id(path)
        if module in modules:
            raise Refusal(
                f"{source.weights}: {path} and {modules[module].path} are one module", "keep one of them"
            )
        modules[module] = _module(source, config, entries, path, factors)
    return modules


def _module(
    source: AdapterSource,
    config: Mapping[str, Any],
    entries: Mapping[str, TensorEntry],
    path: str,
    factors: Mapping[str, str],
) -> _Module:
    if len(factors) < 2:
        (present,) = factors
        raise Refusal(
            f"{source.weights}: {path} has lora_{present} without lora_{'B' if present == 'A' else 'A'}",
            "save the adapter again",
        )
    a, b = entries[factors["A"]], entries[factors["B"]]
    for name, entry in ((factors["A"], a), (factors["B"], b)):
        if entry.dtype not in DTYPES:
            raise Refusal(
                f"{source.weights}: {name} is {entry.dtype}", f"convert it to one of {', '.join(DTYPES)}"
            )
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or 0 in a.shape + b.shape:
        raise Refusal(
            f"{source.weights}: lora_A {list(a.shape)} and lora_B {list(b.shape)} of {path} do not fit",
            "they should be [rank, inputs] and [outputs, rank]",
        )
    rank = _number(source.config, config, "rank_pattern", "r", PEFT_DEFAULT_RANK, path)
    if rank != a.shape[0]:
        raise Refusal(
            f"{source.config} gives {path} rank {rank:g}, but its lora_A has {a.shape[0]} rows",
            "the config and the weights are of different adapters, or r or rank_pattern was edited",
        )
    alpha = _number(source.config, config, "alpha_pattern", "lora_alpha", PEFT_DEFAULT_ALPHA, path)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    dtype = a.dtype if a.dtype == b.dtype else "F32"
    return _Module(
        path, factors["A"], factors["B"], ModuleShape(a.shape[0], a.shape[1], b.shape[0], dtype), scale
    )


def _number(
    file: Path, config: Mapping[str, Any], patterns: str, field: str, default: int, path: str
) -> float:
    """The value for one module: of the first pattern that matches the end of its path, else the field's."""
    found = config.get(patterns) or {}
    if not isinstance(found, dict):
        raise Refusal(f"{file}: {patterns} is {found!r}", "it should be an object of pattern to number")
    place, value = field, config.get(field, default)
    for pattern, given in found.items():
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", path)
        except re.error as fault:
            raise Refusal(f"{file}: {patterns} holds {pattern!r}: {fault}", "correct the pattern") from fault
        if matches:
            place, value = f"{patterns}[{pattern!r}]", given
            break
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value == 0
    ):
        raise Refusal(f"{file}: {place} is {value!r}", "it should be a number other than 0")
    return value
