"""The factors of an adapter as a file is to hold them: the scale folded in, one rank, one dtype."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import Block, Float32, LoraFactors, ModuleShape, Part
from pamctl.adapters.fingerprint import BlockwiseDigest, combined_digest, module_digest
from pamctl.adapters.provenance import embedding, public_name
from pamctl.adapters.safetensors_file import rounded_to, write_safetensors
from pamctl.refusal import Refusal


@dataclass(frozen=True)
class WriteOptions:
    """How an adapter is written.

    Args:
        dtype: of the factors, one of F32, F16, BF16; None takes the narrowest that holds the adapter's own,
            where F16 in which a scale is folded, or that were merged or truncated, become F32.
        compact: keep each module's own rank; else all are padded with zeros to the largest.
        spelling: of module paths, one of `module_names.SPELLINGS`.
    """

    dtype: str | None = None
    compact: bool = False
    spelling: str = "4.57"


class WrittenFactors:
    """The factors module by module, as they will be read again, and so the fingerprint of what is written."""

    def __init__(self, adapter: Adapter, options: WriteOptions) -> None:
        self.adapter = adapter
        self.dtype = options.dtype or adapter.dtype
        self.compact = options.compact
        self._digests: dict[str, bytes] = {}

    @cached_property
    def shapes(self) -> dict[str, ModuleShape]:
        """What each module will be: the rank with its padding, the dtype of the file."""
        return {
            module: ModuleShape(
                shape.rank if self.compact else self.adapter.rank,
                shape.inputs,
                shape.outputs,
                self.dtype,
                shape.layer,
            )
            for module, shape in self.adapter.shapes.items()
        }

    def __getitem__(self, module: str) -> tuple[Float32, Float32]:
        """a (rank, inputs) and b (outputs, rank) of one module, in float32 but rounded to the dtype."""
        factors = self.adapter.modules[module].folded()
        parts = {"a": self._rounded(module, "a", factors.a), "b": self._rounded(module, "b", factors.b)}
        self._digests[module] = module_digest(LoraFactors(parts["a"], parts["b"], layer=factors.layer))
        missing = self.shapes[module].rank - factors.rank
        if missing:
            return np.pad(parts["a"], ((0, missing), (0, 0))), np.pad(parts["b"], ((0, 0), (0, missing)))
        return parts["a"], parts["b"]

    def blocks(self, order: Sequence[str]) -> Iterator[Block]:
        """Modules in this order, in blocks as `ComputedModules.blocks` gives them.

        In float32 but rounded to the dtype, and with the padding that makes one rank.
        """
        for module, blocks in groupby(self.adapter.modules.blocks(order), key=lambda block: block.module):
            shape = self.adapter.shapes[module]
            missing = self.shapes[module].rank - shape.rank
            digest, held = BlockwiseDigest(shape), dict[Part, Float32]()
            for _, part, values in blocks:
                if part == "b" and missing and "b" not in held:
                    yield Block(module, "a", np.zeros((missing, shape.inputs), np.float32))
                rounded = self._rounded(module, part, values)
                digest.update(part, rounded)
                held[part] = rounded
                padding = missing if part == "b" else 0
                yield Block(module, part, np.pad(rounded, ((0, 0), (0, padding))) if padding else rounded)
            if not digest.is_padded:
                self._digests[module] = digest.digest()
            elif held["a"].shape[0] == shape.rank and held["b"].shape[0] == shape.outputs:
                self._digests[module] = module_digest(LoraFactors(held["a"], held["b"], layer=shape.layer))
            else:
                self._digests[module] = self._digest_less_padding(module)

    def _digest_less_padding(self, module: str) -> bytes:
        """The digest of a module that comes in blocks, in two more passes: the first tells its padding."""
        shape, used = self.adapter.shapes[module], 0
        row = 0
        for _, part, values in self.adapter.modules.blocks([module]):
            nonzero = np.flatnonzero(values.any(axis=1 if part == "a" else 0))
            if nonzero.size:
                used = max(used, int(nonzero[-1]) + 1 + (row if part == "a" else 0))
            row += len(values)
        digest, row = BlockwiseDigest(replace(shape, rank=used)), 0
        for _, part, values in self.adapter.modules.blocks([module]):
            rounded = self._rounded(module, part, values)
            digest.update(part, rounded[: max(used - row, 0)] if part == "a" else rounded[:, :used])
            row += len(values)
        return digest.digest()

    def _rounded(self, module: str, part: Part, values: Float32) -> Float32:
        rounded = rounded_to(values, self.dtype, f"{module} {part.upper()}")
        return rounded.astype(np.float32, copy=False)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of what was written, once every module has been asked for."""
        if self._digests.keys() != self.adapter.shapes.keys():
            raise ValueError("the fingerprint is known when every module is written")
        return combined_digest(self._digests, self.adapter.extras, self.adapter.router_digests)


def factor_shapes(shape: ModuleShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(rank, channels, *kernel) and (outputs, rank, 1...), as every format but mlx lays the factors out."""
    kernel = shape.layer.kernel
    channels = shape.inputs // math.prod(kernel)
    return (shape.rank, channels, *kernel), (shape.outputs, shape.rank, *(1 for _ in kernel))


def write_one_file(
    adapter: Adapter,
    draft: Path,
    usual_name: str,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, NDArray[Any]]],
    dtypes: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Write a format that is one safetensors file, its base named in the metadata; see `write_safetensors`.

    Args:
        draft: that file, whose metadata then holds the record too, or a folder for `usual_name`.
    """
    metadata = dict(metadata)
    if adapter.base_model:
        metadata["ss_base_model_version"] = public_name(adapter.base_model)
    if draft.is_dir():
        draft = draft / usual_name
    elif adapter.provenance is not None:
        # the header stands before the numbers, so the fingerprint is not known yet
        metadata |= embedding(replace(adapter.provenance, fingerprint=None))
    write_safetensors(draft, shapes, tensors, dtypes, metadata)


def refuse_extras(adapter: Adapter, format: str) -> None:
    """Refuse tensors that are no deltas where a format has no place for them."""
    if adapter.extras:
        names = list(adapter.extras)
        raise Refusal(
            f"{adapter.name} carries {len(names)} tensors that are no LoRA factors, such as {names[0]}, "
            f"for which {format} has no place",
            "write it as peft, which keeps them",
        )


def refuse_layers(adapter: Adapter, format: str, *kinds: str) -> None:
    """Refuse a module of one of these kinds of layer where a format has no place for it."""
    for module, shape in adapter.shapes.items():
        if shape.layer.kind in kinds:
            raise Refusal(
                f"{module} of {adapter.name} is {shape.layer.kind}, for which {format} has no place",
                "write it as peft, which keeps it",
            )
