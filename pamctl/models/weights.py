"""Parameters from and to Hugging Face safetensors; the numbers lie as on disk."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save_file

from pamctl.adapters.safetensors_file import open_safetensors
from pamctl.adapters.tensor_file import DAMAGED, FileState, TensorFile
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.leaves import Leaf, canonical_name, hub_name, model_leaves
from pamctl.models.placement import Sharding
from pamctl.models.reading import read_model
from pamctl.models.stored import KINDS, Run, StoredModel
from pamctl.models.trees import Tree
from pamctl.refusal import Refusal

_WAY_ON = "fetch the checkpoint again, or use one in Hugging Face layout"


def read_weights(
    folder: Path, config: PaliGemmaConfig, dtype: Any = np.float32, sharding: Sharding | None = None
) -> tuple[Tree, str]:
    """Read `folder`'s model.safetensors, or its shards; see `read_model` for the rest.

    Raises:
        Refusal: as `stored_weights` and `read_model`.
    """
    return read_model(stored_weights(folder, config), np.dtype(dtype), sharding)


def stored_weights(folder: Path, config: PaliGemmaConfig) -> StoredModel:
    """Find every tensor of a model in `folder`'s model.safetensors, or its shards, their numbers unread.

    Raises:
        Refusal: no safetensors; tensors missing, unexpected, or of a wrong shape or kind.
    """
    leaves = model_leaves(config)
    sources = _open_tensors(folder)
    _check(folder, leaves, sources)
    groups = [
        tuple(_run(leaf, layer, sources[name]) for layer, name in enumerate(leaf.names())) for leaf in leaves
    ]
    return StoredModel(tuple(_files(folder)), tuple(groups))


def write_weights(folder: Path, params: Tree, config: PaliGemmaConfig, dtype: Any = np.float32) -> None:
    """Write model.safetensors and config.json, in the Hub's spelling, into `folder`.

    The caller gives a draft folder of `whole_output.whole_folder`.
    """
    tensors: dict[str, np.ndarray] = {}
    for leaf in model_leaves(config):
        array = np.asarray(_get(params, leaf.path)).astype(dtype)
        for layer, name in enumerate(leaf.names()):
            tensors[hub_name(name)] = (array[layer] if leaf.stacked else array).reshape(leaf.stored)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class _Source:
    """A tensor of a safetensors file; `name` as the file spells it."""

    name: str
    file: TensorFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file[self.name].shape

    @property
    def kind(self) -> str:
        return self.file[self.name].dtype


@dataclass(frozen=True)
class _Opened:
    """A tensor whose file is open."""

    source: _Source
    stream: BinaryIO

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def where(self) -> str:
        return f"{self.source.file.path}: {self.source.name}"

    def fill(self, start: int, out: np.ndarray) -> None:
        entry, buffer = self.source.file[self.source.name], out.reshape(-1).view(np.uint8).data
        first = start * out[:1].nbytes
        done = 0
        while done < len(buffer):
            count = os.preadv(self.stream.fileno(), [buffer[done:]], entry.offset + first + done)
            if count == 0:
                raise Refusal(f"{self.where} ends after {first + done} of {entry.size} bytes", DAMAGED)
            done += count


def _run(leaf: Leaf, layer: int, source: _Source) -> Run:
    """A tensor by itself, as each lies in a place of its own."""

    def opened() -> Iterator[_Opened]:
        path = source.file.path
        with path.open("rb", buffering=0) as stream:
            if FileState.of(os.fstat(stream.fileno())) != source.file.state:
                raise Refusal(f"{path} has changed since it was opened", "run again when it is whole")
            yield _Opened(source, stream)

    return Run(((leaf, layer, source.kind),), opened)


def _open_tensors(folder: Path) -> dict[str, _Source]:
    sources: dict[str, _Source] = {}
    for path in _files(folder):
        file = open_safetensors(path)
        for name in file:
            canonical = canonical_name(name)
            if canonical is None:
                continue
            if canonical in sources:
                raise Refusal(f"{path}: {name} and {sources[canonical].name} are the same tensor", _WAY_ON)
            sources[canonical] = _Source(name, file)
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


def _check(folder: Path, leaves: list[Leaf], sources: Mapping[str, _Source]) -> None:
    wanted = {name: leaf.stored for leaf in leaves for name in leaf.names()}
    faults = [f"missing {name}" for name in wanted if name not in sources]
    faults += [f"unexpected {source.name}" for name, source in sources.items() if name not in wanted]
    for name, source in sources.items():
        if name in wanted and source.shape != wanted[name]:
            faults.append(f"{source.name} has shape {source.shape}, config.json means {wanted[name]}")
        if source.kind not in KINDS:
            faults.append(f"{source.name} is {source.kind}, not F32, F16 or BF16")
    if faults:
        raise Refusal(f"{folder} does not hold the model of its config.json: " + "; ".join(faults), _WAY_ON)


def _get(tree: Tree, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
