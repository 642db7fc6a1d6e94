"""A base of any readable layout written as a Hugging Face folder, a block of a tensor in memory at a time.

An adapter may be folded into it: then each matrix that it adapts becomes W + scale·B·A.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import refuse_experts
from pamctl.adapters.factors import LoraFactors
from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.models.base import fingerprint_of
from pamctl.models.checkpoint import Checkpoint
from pamctl.models.leaves import Leaf, hub_name
from pamctl.models.lora import refuse_unfitting
from pamctl.models.stored import KINDS, BlockReader, StoredTensor, row_blocks
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.whole_output import refuse_existing, whole_folder

SHARD_SIZE = 5 << 30
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "generation_config.json",
    "preprocessor_config.json",
    "lora.json",
)


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: `kind` on disk here, `written` on disk there."""

    leaf: Leaf
    layer: int
    kind: str
    written: str

    @property
    def name(self) -> str:
        return hub_name(self.leaf.name(self.layer))

    @property
    def module(self) -> str:
        """Canonical id of the module whose weight or bias it is."""
        return self.leaf.name(self.layer).rpartition(".")[0]

    @property
    def bytes(self) -> int:
        return math.prod(self.leaf.stored) * KINDS[self.written].itemsize


@dataclass(frozen=True)
class BaseExport:
    """What will be written of a base.

    Attributes:
        shards: the tensors of each file, in the order in which they are read.
        adapter: what is folded into it.
    """

    checkpoint: Checkpoint
    shards: tuple[tuple[_Tensor, ...], ...]
    adapter: Adapter | None = None

    @property
    def tensors(self) -> int:
        """How many there are."""
        return sum(len(shard) for shard in self.shards)

    @property
    def bytes(self) -> int:
        """What their numbers take on disk."""
        return sum(tensor.bytes for shard in self.shards for tensor in shard)

    @property
    def dtypes(self) -> list[str]:
        """The number formats on disk: f32, f16 or bf16."""
        return sorted({tensor.written.lower() for shard in self.shards for tensor in shard})

    def file(self, number: int) -> str:
        """Name of a shard, counted from 0."""
        if len(self.shards) == 1:
            return "model.safetensors"
        return f"model-{number + 1:05}-of-{len(self.shards):05}.safetensors"

    @property
    def files(self) -> list[str]:
        """Names of all shards."""
        return [self.file(number) for number in range(len(self.shards))]


def plan_base_export(
    checkpoint: Checkpoint,
    dtype: str | None = None,
    max_shard_size: int = SHARD_SIZE,
    adapter: Adapter | None = None,
) -> BaseExport:
    """Decide which tensor of an opened base goes into which file.

    Args:
        dtype: f32, f16 or bf16 on disk; None leaves each tensor in its own.
        max_shard_size: bytes of a file's tensors; a larger tensor has a file of its own.
        adapter: to fold into it.

    Raises:
        Refusal: the adapter is another base's, damaged, or no plain LoRA.
        UsageRefusal: another dtype, or a size below 1.
    """
    if dtype is not None and dtype.upper() not in KINDS:
        raise UsageRefusal(f"dtype is {dtype!r}", f"choose one of {', '.join(KINDS).lower()}")
    if max_shard_size < 1:
        raise UsageRefusal(f"max_shard_size is {max_shard_size}", "give a number of bytes, such as 5GB")
    if adapter is not None:
        _refuse_unfoldable(adapter, checkpoint)
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for leaf, layer, kind in (
        entry for group in checkpoint.weights.groups for run in group for entry in run.tensors
    ):
        tensor = _Tensor(leaf, layer, kind, dtype.upper() if dtype else kind)
        if shards[-1] and size + tensor.bytes > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    return BaseExport(checkpoint, tuple(tuple(shard) for shard in shards), adapter)


def refuse_taken(output: Path, *, force: bool = False) -> None:
    """Refuse an output that `export_base` would refuse, before any work is done."""
    refuse_existing(output, force=force, known=_is_ours)


def export_base(export: BaseExport, output: Path, *, force: bool = False) -> None:
    """Write a base as a folder that transformers and `load_base` load whole.

    Args:
        force: replace an existing folder that holds nothing but such an output.

    Raises:
        Refusal: the output is taken or cannot be written; numbers that are not finite, here or in the dtype.
    """
    with whole_folder(output, force=force, known=_is_ours) as draft:
        tensors = _all_tensors(export.checkpoint)
        for number, shard in enumerate(export.shards):
            write_safetensors(
                draft / export.file(number),
                {tensor.name: tensor.leaf.stored for tensor in shard},
                _blocks(shard, tensors, export.adapter),
                {tensor.name: tensor.written for tensor in shard},
            )
        _write_settings(export, draft)


def _all_tensors(checkpoint: Checkpoint) -> Iterator[StoredTensor]:
    for group in checkpoint.weights.groups:
        for run in group:
            yield from run.open()


def _refuse_unfoldable(adapter: Adapter, checkpoint: Checkpoint) -> None:
    refuse_experts([adapter])
    refuse_unfitting(adapter, checkpoint.config)
    if adapter.base_fingerprint and adapter.base_fingerprint != (found := fingerprint_of(checkpoint)):
        raise Refusal(
            f"{adapter.name} was made for base {adapter.base_model} ({adapter.base_fingerprint[:12]}), "
            f"not for {checkpoint.name} ({found[:12]})",
            "fold it into the base that it was trained on",
        )
    _ = adapter.fingerprint  # which refuses weights that are not those of its record


def _blocks(
    shard: tuple[_Tensor, ...], tensors: Iterator[StoredTensor], adapter: Adapter | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the numbers of a file's tensors; what is left in `tensors` is the next files'."""
    reader = BlockReader()
    for tensor in shard:
        stored, factors = next(tensors), _factors(adapter, tensor)
        for start, stop in row_blocks(tensor.leaf, tensor.kind):
            values = reader.read(stored, tensor.leaf, start, stop)
            if factors is not None:
                values = values.astype(np.float32) + factors.b[start:stop] @ factors.a
            yield tensor.name, values


def _factors(adapter: Adapter | None, tensor: _Tensor) -> LoraFactors | None:
    """What is added to a tensor: of a matrix that is adapted, the factors with the scale in b."""
    if adapter is None or tensor.leaf.path[-1] != "weight" or tensor.module not in adapter.shapes:
        return None
    return adapter.modules[tensor.module].folded()


def _write_settings(export: BaseExport, draft: Path) -> None:
    """Write all that is beside the weights: copied where it is there, else made."""
    checkpoint = export.checkpoint
    for name in _COPIED:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, draft / name)
    made = {"config.json": checkpoint.config.to_json()}
    if not (draft / "preprocessor_config.json").exists():
        made["preprocessor_config.json"] = checkpoint.images.to_json()
    if not (draft / "tokenizer_config.json").exists():
        made["tokenizer_config.json"] = _tokenizer_config()
    if len(export.shards) > 1:
        weight_map = {
            tensor.name: export.file(number) for number, shard in enumerate(export.shards) for tensor in shard
        }
        index = {"metadata": {"total_size": export.bytes}, "weight_map": weight_map}
        made["model.safetensors.index.json"] = json.dumps(index, indent=2, sort_keys=True) + "\n"
    for name, text in made.items():
        (draft / name).write_text(text, encoding="utf-8")


def _tokenizer_config() -> str:
    special = {f"{token}_token": f"<{token}>" for token in ("pad", "eos", "bos", "unk")}
    fields = {
        **special,
        "extra_special_tokens": {"image_token": "<image>"},
        "processor_class": "PaliGemmaProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _is_ours(name: str) -> bool:
    weights = name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
    return weights or name in (*_COPIED, "config.json")
