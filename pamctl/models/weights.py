"""Parameters from and to Hugging Face safetensors: names and layer stacking; the numbers lie as on disk."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from pamctl.adapters.safetensors_file import open_safetensors
from pamctl.adapters.tensor_file import TensorFile
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.paligemma import initial_parameters
from pamctl.models.trees import Tree
from pamctl.refusal import Refusal

_WAY_ON = "fetch the checkpoint again, or use one in Hugging Face layout"
_HUB_SPELLING = (
    ("vision_tower.", "vision_tower.vision_model."),
    ("language_model.", "language_model.model."),
)


@dataclass(frozen=True)
class _Leaf:
    """One stacked parameter: its path in the tree and the tensors of a checkpoint that make it up."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    patch: int

    @property
    def stacked(self) -> bool:
        return "layers" in self.path

    def names(self) -> list[str]:
        """Canonical tensor names, one a layer."""
        name = ".".join(self.path)
        layers = range(self.shape[0]) if self.stacked else (0,)
        return [name.replace(".layers.", f".layers.{layer}.") for layer in layers]

    @property
    def one(self) -> tuple[int, ...]:
        """Shape of one layer in our tree."""
        return self.shape[1:] if self.stacked else self.shape

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one layer's tensor on disk; of the same numbers in the same order."""
        if "patch_embedding" in self.path and self.path[-1] == "weight":
            return (self.one[0], 3, self.patch, self.patch)
        return self.one


def canonical_name(name: str) -> str | None:
    """Return the one spelling of a checkpoint's tensor name; None for the tied head, which is a copy.

    >>> canonical_name("model.vision_tower.vision_model.post_layernorm.bias")
    'vision_tower.post_layernorm.bias'
    >>> canonical_name("language_model.model.norm.weight")
    'language_model.norm.weight'
    """
    if re.fullmatch(r"(language_model\.)?lm_head\.weight", name):
        return None
    name = name.removeprefix("model.")
    for ours, hub in _HUB_SPELLING:
        if name.startswith(hub):
            return ours + name.removeprefix(hub)
    return name


def read_weights(
    folder: Path,
    config: PaliGemmaConfig,
    dtype: Any = np.float32,
    place: Callable[[np.ndarray], jax.Array] = jax.numpy.asarray,
) -> tuple[Tree, str]:
    """Read `folder`'s model.safetensors, or its shards, one stacked parameter at a time.

    Args:
        dtype: of the parameters in memory.
        place: puts one stacked parameter on the device or devices.

    Returns:
        The parameters, and the SHA-256 of all tensors as stored, the same for any spelling or sharding.

    Raises:
        Refusal: no safetensors; tensors missing, unexpected, of a wrong shape or kind, or not finite.
    """
    leaves = _leaves(config)
    sources = _open_tensors(folder)
    _check(folder, leaves, sources)
    digest = hashlib.sha256()
    tree: Tree = {}
    for leaf in leaves:
        stack = np.empty(leaf.shape, dtype)
        for layer, name in enumerate(leaf.names()):
            tensor = sources[name].read()
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).view(np.uint8).data)
            (stack[layer] if leaf.stacked else stack)[...] = tensor.reshape(leaf.one)
        _put(tree, leaf.path, place(stack))
    return tree, digest.hexdigest()


def write_weights(folder: Path, params: Tree, config: PaliGemmaConfig, dtype: Any = np.float32) -> None:
    """Write model.safetensors and config.json, in the Hub's spelling, into `folder`.

    The caller gives a draft folder of `whole_output.whole_folder`.
    """
    tensors: dict[str, np.ndarray] = {}
    for leaf in _leaves(config):
        array = np.asarray(_get(params, leaf.path)).astype(dtype)
        for layer, name in enumerate(leaf.names()):
            tensors[_hub_name(name)] = (array[layer] if leaf.stacked else array).reshape(leaf.stored)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class _Stored:
    """A tensor on disk, not yet read; `name` as the file spells it."""

    name: str
    file: TensorFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file[self.name].shape

    @property
    def kind(self) -> str:
        return self.file[self.name].dtype

    def read(self) -> np.ndarray:
        return self.file.stored(self.name)


def _open_tensors(folder: Path) -> dict[str, _Stored]:
    sources: dict[str, _Stored] = {}
    for path in _files(folder):
        file = open_safetensors(path)
        for name in file:
            canonical = canonical_name(name)
            if canonical is None:
                continue
            if canonical in sources:
                raise Refusal(f"{path}: {name} and {sources[canonical].name} are the same tensor", _WAY_ON)
            sources[canonical] = _Stored(name, file)
    return sources


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise Refusal(f"{folder} has no model.safetensors and no {index.name}", _WAY_ON)
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as fault:
        raise Refusal(f"{index} is not an index of shards: {fault!r}", _WAY_ON) from fault
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise Refusal(f"{folder} lacks {', '.join(missing)}, which {index.name} lists", _WAY_ON)
    return [folder / shard for shard in shards]


def _check(folder: Path, leaves: list[_Leaf], sources: Mapping[str, _Stored]) -> None:
    wanted = {name: leaf.stored for leaf in leaves for name in leaf.names()}
    faults = [f"missing {name}" for name in wanted if name not in sources]
    faults += [f"unexpected {stored.name}" for name, stored in sources.items() if name not in wanted]
    for name, stored in sources.items():
        if name in wanted and stored.shape != wanted[name]:
            faults.append(f"{stored.name} has shape {stored.shape}, config.json means {wanted[name]}")
        if stored.kind not in ("F32", "F16", "BF16"):
            faults.append(f"{stored.name} is {stored.kind}, not F32, F16 or BF16")
    if faults:
        raise Refusal(f"{folder} does not hold the model of its config.json: " + "; ".join(faults), _WAY_ON)


def _leaves(config: PaliGemmaConfig) -> list[_Leaf]:
    abstract = jax.eval_shape(lambda: initial_parameters(config, 0))
    return [_Leaf(path, leaf.shape, config.vision.patch_size) for path, leaf in _walk(abstract)]


def _walk(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            yield from _walk(value, (*path, key))
        else:
            yield (*path, key), value


def _hub_name(canonical: str) -> str:
    for ours, hub in _HUB_SPELLING:
        if canonical.startswith(ours):
            return hub + canonical.removeprefix(ours)
    return canonical


def _get(tree: Tree, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
