"""The MLX format: `adapter_config.json` beside `adapters.safetensors`, as mlx-lm and mlx-vlm have it.

`<path>.lora_a` is (in, rank), `<path>.lora_b` (rank, out), and the delta scale · (lora_a @ lora_b)ᵀ; of an
embedding the table (vocabulary, dim) gets scale · lora_a @ lora_b. The config's scale is the factor itself,
not yet to be divided by the rank.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.formats.pairing import LEAST_SCALE, MOST_SCALE, FactorPair, paired_modules
from pamctl.adapters.formats.stored import Contents, Stored
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors, refuse_extras, refuse_layers
from pamctl.adapters.module_names import canonical_ids, layout, written_path
from pamctl.adapters.provenance import public_name
from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.adapters.sources import CONFIG_NAME
from pamctl.adapters.tensor_file import shown
from pamctl.refusal import Refusal, UsageRefusal

WEIGHTS_NAME = "adapters.safetensors"
EMBEDDINGS = (
    "embed",
    "embed_tokens",
    "embed_tokens_per_layer",
    "embedding",
    "embeddings",
    "tok_embeddings",
    "token_embeddings",
    "word_embeddings",
    "wpe",
    "wte",
)
"""The last part of the paths at which mlx-lm's models have an embedding: its file looks like a linear's."""

_FACTORS = {"lora_a": "a", "A": "a", "lora_b": "b", "B": "b"}  # mlx-vlm before 0.6 had A and B
_PARAMETERS = {"rank", "scale", "dropout", "keys", "alpha"}
_ALL_LAYERS = -1

# mlx-vlm calls Qwen-VL's `visual` vision_tower, and puts a `vision_model` into Pixtral's too.
_QWEN_VISION = re.compile(r"^vision_tower\.(?=(blocks|merger|patch_embed|deepstack_merger_list)\b)")
_MLX_VISION = re.compile(r"^(visual\.|vision_tower\.(?=transformer\.))")
_MLX_VISION_IS = {"visual.": "vision_tower.", "vision_tower.": "vision_tower.vision_model."}


def recognises(stored: Stored) -> bool:
    """Whether the settings or the names of the tensors are those of mlx-lm or mlx-vlm."""
    if "fine_tune_type" in stored.settings or "lora_parameters" in stored.settings:
        return True
    return any(name.rpartition(".")[2] in _FACTORS for name in stored.tensors)


def read(stored: Stored) -> Contents:
    """The modules of an MLX folder, their numbers unread.

    A module is an embedding if its path ends in one of `EMBEDDINGS`. mlx-vlm's legacy config gives rank and
    alpha, which up to 0.4 meant the scale alpha and from 0.5 on alpha / rank: it is read only at rank 1.

    Raises:
        Refusal: DoRA, a full fine-tune, a layer of experts, or anything else that is not a plain LoRA; no
            scale, or one that is told in two ways.
    """
    rank, scale = _rank_and_scale(stored)
    base = stored.settings.get("model")
    base_model = base if isinstance(base, str) and base else None
    pairs = {path: _pair(stored, path, names, rank, scale) for path, names in _sorted_out(stored).items()}
    spelled = {path: _QWEN_VISION.sub("visual.", path, count=1) for path in pairs}
    ids = canonical_ids(spelled.values(), base_model)
    modules: dict[str, FactorPair] = {}
    for path, pair in pairs.items():
        module = ids[spelled[path]]
        if module in modules:
            raise Refusal(
                f"{stored.file}: {path} and {modules[module].path} are one module", "keep one of them"
            )
        modules[module] = pair
    return Contents(paired_modules(stored.tensors, modules), base_model)


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse convolutions, extras, ranks of their own, and an embedding that its name does not tell from a
    linear layer, or the reverse."""
    refuse_extras(adapter, "mlx")
    refuse_layers(adapter, "mlx", "conv")
    for module, shape in adapter.shapes.items():
        if options.compact and shape.rank != adapter.rank:
            raise UsageRefusal(
                f"{module} has rank {shape.rank}, others {adapter.rank}, and mlx knows one rank",
                "leave --compact out: the smaller ones are then padded with zeros",
            )
        if (shape.layer.kind == "embedding") != _is_embedding(module):
            raise Refusal(
                f"{module} is {shape.layer.kind}, which only the name tells in mlx, and this name does not",
                "write it as peft, which tells them apart",
            )


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write a folder with scale 1 that names every module by its whole path in `keys`.

    Both loaders look such a path up in the model and so adapt exactly these modules, in whichever layers they
    are; mlx-vlm has no LoRA for embeddings and says so. Module paths are those of mlx's models, whatever the
    spelling. Equal adapters give equal bytes.
    """
    paths = _written_paths(adapter)
    order = sorted(paths, key=lambda module: paths[module])
    shapes: dict[str, tuple[int, ...]] = {}
    for module in order:
        shape = factors.shapes[module]
        shapes[f"{paths[module]}.lora_a"] = (shape.inputs, shape.rank)
        shapes[f"{paths[module]}.lora_b"] = (shape.rank, shape.outputs)

    def tensors() -> Iterator[tuple[str, NDArray[Any]]]:
        for module in order:
            a, b = factors[module]
            yield f"{paths[module]}.lora_a", a.T
            yield f"{paths[module]}.lora_b", b.T

    write_safetensors(draft / WEIGHTS_NAME, shapes, tensors(), dict.fromkeys(shapes, factors.dtype))
    keys = [paths[module] for module in order]
    config = {
        "fine_tune_type": "lora",
        "lora_parameters": {"dropout": 0.0, "keys": keys, "rank": adapter.rank, "scale": 1.0},
        "model": adapter.base_model and public_name(adapter.base_model),
        "num_layers": _ALL_LAYERS,
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (draft / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def _rank_and_scale(stored: Stored) -> tuple[int, float]:
    """The rank of every module and the factor on lora_a @ lora_b."""
    file, settings = stored.settings_file, stored.settings
    if not settings:
        raise Refusal(
            f"{stored.folder} holds no {CONFIG_NAME}",
            f"put it beside {stored.file.name}: without it the scale of an mlx adapter is unknown",
        )
    kind = settings.get("fine_tune_type", "lora")
    if kind == "dora" or settings.get("use_dora"):
        raise Refusal(f"{file}: the adapter is DoRA, which rescales the base weights", "train a plain LoRA")
    if kind == "full":
        raise Refusal(
            f"{file}: fine_tune_type is 'full': the weights are no LoRA", "train with fine_tune_type lora"
        )
    if kind != "lora":
        raise Refusal(f"{file}: fine_tune_type is {shown(kind)}", "only fine_tune_type lora can be used")
    if "lora_parameters" not in settings:
        return _legacy_rank_and_scale(file, settings)
    parameters = settings["lora_parameters"]
    if not isinstance(parameters, dict):
        raise Refusal(
            f"{file}: lora_parameters is {shown(parameters)}", "it should be an object with rank and scale"
        )
    for field in sorted(parameters.keys() - _PARAMETERS):
        raise Refusal(
            f"{file}: {shown(field)} in lora_parameters is {shown(parameters[field])}: "
            "an unknown field, which may change the delta",
            "remove it from the config if it only concerns training",
        )
    return _rank(file, parameters, "lora_parameters."), _number(file, parameters, "scale", "lora_parameters.")


def _legacy_rank_and_scale(file: Path, settings: Mapping[str, Any]) -> tuple[int, float]:
    rank, alpha = _rank(file, settings), _number(file, settings, "alpha")
    if rank > 1:
        raise Refusal(
            f"{file}: rank is {rank} and alpha {alpha:g}, for which mlx-vlm up to 0.4 scaled by "
            f"alpha = {alpha:g} and from 0.5 on by alpha / rank = {alpha / rank:g}",
            f'add "lora_parameters": {{"rank": {rank}, "scale": {alpha / rank:g}}} to it, or with {alpha:g}',
        )
    return rank, alpha


def _rank(file: Path, fields: Mapping[str, Any], place: str = "") -> int:
    rank = fields.get("rank")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank < 2**31:
        raise Refusal(f"{file}: {place}rank is {shown(rank)}", "it should be a whole number from 1 on")
    return rank


def _number(file: Path, fields: Mapping[str, Any], field: str, place: str = "") -> float:
    number = fields.get(field)
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not LEAST_SCALE <= abs(number) <= MOST_SCALE
    ):
        raise Refusal(f"{file}: {place}{field} is {shown(number)}", "it should be a number other than 0")
    return float(number)


def _sorted_out(stored: Stored) -> dict[str, dict[str, str]]:
    """The names of the two factors by module path."""
    factors: dict[str, dict[str, str]] = {}
    for name in stored.tensors:
        path, _, leaf = name.rpartition(".")
        if leaf == "m":
            raise Refusal(f"{stored.file}: {name} is a magnitude of DoRA, which rescales the base weights",
                          "train a plain LoRA")  # fmt: skip
        if leaf not in _FACTORS or not path:
            raise Refusal(
                f"{stored.file}: {name} is neither <module>.lora_a nor <module>.lora_b",
                "save the adapter again with nothing else trained than the LoRA",
            )
        pair = factors.setdefault(path, {})
        if (factor := _FACTORS[leaf]) in pair:
            raise Refusal(f"{stored.file}: {pair[factor]} and {name} are one tensor", "keep one of them")
        pair[factor] = name
    return factors


def _pair(stored: Stored, path: str, names: Mapping[str, str], rank: int, scale: float) -> FactorPair:
    if len(names) != 2:
        raise Refusal(f"{stored.file}: of {path} there is only {next(iter(names.values()))}",
                      "save the adapter again with mlx")  # fmt: skip
    shape = stored.tensors[names["a"]].shape
    if len(shape) == 3:
        raise Refusal(
            f"{stored.file}: {names['a']} {list(shape)} adapts a layer of {shape[0]} experts",
            "only linear layers and embeddings can be used: train without the experts",
        )
    if len(shape) == 2 and shape[1] != rank:
        raise Refusal(
            f"{stored.settings_file} gives rank {rank}, but {names['a']} has {shape[1]} columns",
            "the config and the weights are of different adapters, or one of them was edited",
        )
    embedding = _is_embedding(path)
    return FactorPair(path, names["a"], names["b"], scale, transposed=True, embedding=embedding)


def _is_embedding(path: str) -> bool:
    return path.rpartition(".")[2] in EMBEDDINGS


def _written_paths(adapter: Adapter) -> dict[str, str]:
    """Each module's path in mlx's model: for vision and language nearly that of transformers 4.51's LLaVA."""
    if layout(adapter.shapes, adapter.base_model) == "plain":
        return {module: module for module in adapter.shapes}
    paths = {module: written_path(module, "4.51", "llava") for module in adapter.shapes}
    return {
        module: _MLX_VISION.sub(lambda found: _MLX_VISION_IS[found[0]], path, count=1)
        for module, path in paths.items()
    }
