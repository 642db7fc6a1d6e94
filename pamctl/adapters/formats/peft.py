"""The PEFT format: `adapter_config.json` beside `adapter_model.safetensors`."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.peft_extras import Spelled, passing_extras, passing_tensor, written_extras
from pamctl.adapters.formats.peft_patterns import PREFIX, target_modules
from pamctl.adapters.formats.peft_settings import PeftSettings
from pamctl.adapters.formats.stored import Contents, Stored
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors, factor_shapes
from pamctl.adapters.module_names import canonical_ids, layout, target_name, written_path
from pamctl.adapters.provenance import public_name
from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.adapters.sources import CONFIG_NAME
from pamctl.adapters.tensor_file import TensorFile
from pamctl.refusal import Refusal

WEIGHTS_NAME = "adapter_model.safetensors"

# A raw dump of the state dict has the adapter's name, as `default`, within or at the end.
_FACTOR = re.compile(
    r"(?P<path>.+)\.(lora_(?P<factor>[AB])(\.(?P<name>[^.]+))?\.weight"
    r"|lora_embedding_(?P<embedding>[AB])(\.(?P<embedding_name>[^.]+))?)"
)


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
    passing = [passing_tensor(stored, settings, pairs, wrapper, other) for other in others]
    ids = canonical_ids([*pairs, *(tensor.path for tensor in passing)], settings.base_model)
    modules: dict[str, FactorPair] = {}
    for path, pair in pairs.items():
        if ids[path] in modules:
            raise Refusal(
                f"{stored.file}: {path} and {modules[ids[path]].path} are one module", "keep one of them"
            )
        modules[ids[path]] = pair
    return Contents(
        paired_modules(stored.tensors, modules),
        settings.base_model,
        passing_extras(stored.tensors, passing, ids),
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
    order = sorted(adapter.shapes, key=path)
    shapes: dict[str, tuple[int, ...]] = {}
    for module in order:
        name = _names(module, adapter, path)
        shapes[name["A"]], shapes[name["B"]] = factor_shapes(factors.shapes[module])
    extras = dict(written_extras(adapter, path))
    dtypes = dict.fromkeys(shapes, factors.dtype) | {name: extra.dtype for name, extra in extras.items()}
    shapes |= {name: extra.shape for name, extra in extras.items()}

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        for module, part, values in factors.blocks(order):
            yield _names(module, adapter, path)[part.upper()], values
        for name_of_extra, extra in extras.items():
            yield name_of_extra, extra.read()

    write_safetensors(draft / WEIGHTS_NAME, shapes, tensors(), dtypes)
    target = partial(target_name, spelling=options.spelling, layout=family)
    config = json.dumps(_config(adapter, factors, target), indent=2, ensure_ascii=False)
    (draft / CONFIG_NAME).write_text(config + "\n", encoding="utf-8")


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


def _names(module: str, adapter: Adapter, path: Spelled) -> dict[str, str]:
    key = PREFIX + path(module)
    if adapter.shapes[module].layer.kind == "embedding":
        return {factor: f"{key}.lora_embedding_{factor}" for factor in "AB"}
    return {factor: f"{key}.lora_{factor}.weight" for factor in "AB"}


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
