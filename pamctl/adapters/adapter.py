"""What an adapter is: for each adapted module the two LoRA factors and their scale, read when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.provenance import BaseModel, Provenance, public_name

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """One adapted module: delta = scale · b @ a.

    Args:
        a: (rank, inputs) float32, applied first.
        b: (outputs, rank) float32.
        scale: alpha / rank, or alpha / √rank under rsLoRA; 1 when it is already folded into `b`.
    """

    a: Float32
    b: Float32
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ValueError(
                f"a {self.a.shape} and b {self.b.shape} are not (rank, inputs) and (outputs, rank)"
            )

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def shape(self) -> "ModuleShape":
        return ModuleShape(rank=self.rank, inputs=self.a.shape[1], outputs=self.b.shape[0], dtype="F32")

    def folded(self) -> "LoraFactors":
        """The same delta with the scale multiplied into `b`: what pamctl compares and writes."""
        return self if self.scale == 1.0 else LoraFactors(self.a, self.b * np.float32(self.scale))


@dataclass(frozen=True)
class ModuleShape:
    """What is known of a module without reading its numbers; `dtype` is the one at rest (F32, F16, BF16)."""

    rank: int
    inputs: int
    outputs: int
    dtype: str

    @property
    def parameters(self) -> int:
        return self.rank * (self.inputs + self.outputs)


class ComputedModules(Mapping[str, LoraFactors]):
    """Modules computed each time they are asked for and never kept: memory stays that of one module."""

    def __init__(self, shapes: Mapping[str, ModuleShape], compute: Callable[[str], LoraFactors]) -> None:
        self.shapes = shapes
        self._compute = compute

    def __getitem__(self, module: str) -> LoraFactors:
        if module not in self.shapes:
            raise KeyError(module)
        return self._compute(module)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Adapter:
    """A LoRA checkpoint: adapted modules by canonical id, in sorted order, and where they come from.

    Args:
        modules: canonical module id -> factors; `ComputedModules` for what is read only when asked for.
        provenance: how pamctl made it; None for an adapter from elsewhere.
        base_model: the base it adapts, by name or path, as far as known.
        name: how messages call it: the reference it was opened by.
    """

    def __init__(
        self,
        modules: Mapping[str, LoraFactors],
        provenance: Provenance | None = None,
        base_model: str | None = None,
        name: str = "adapter",
    ) -> None:
        given = modules.shapes if isinstance(modules, ComputedModules) else _shapes(modules)
        self.shapes: dict[str, ModuleShape] = {module: given[module] for module in sorted(given)}
        self.modules: Mapping[str, LoraFactors] = ComputedModules(self.shapes, modules.__getitem__)
        self.provenance = provenance
        recorded = provenance.base.name if provenance and provenance.base else None
        self.base_model = base_model or recorded
        self.name = name

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((shape.rank for shape in self.shapes.values()), default=0)

    @property
    def parameters(self) -> int:
        """How many numbers the factors hold."""
        return sum(shape.parameters for shape in self.shapes.values())

    @property
    def base(self) -> BaseModel | None:
        """The base model as it may be recorded, by public name."""
        if self.provenance and self.provenance.base:
            return self.provenance.base
        return BaseModel(public_name(self.base_model)) if self.base_model else None

    @property
    def base_fingerprint(self) -> str | None:
        return self.base.fingerprint if self.base else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the adapter does: ids, shapes and float32 factors, the scale folded into b.

        The dtype, order, spelling and zero padding of the rank on disk do not enter it, so an adapter keeps
        its fingerprint when pamctl writes it. The first call reads every module.
        """
        digest = hashlib.sha256()
        for module, factors in self.modules.items():
            a, b = _without_padding(factors.folded())
            digest.update(f"{module}\0{a.shape[0]}\0{a.shape[1]}\0{b.shape[0]}\0".encode())
            digest.update(np.ascontiguousarray(a, dtype="<f4").data)
            digest.update(np.ascontiguousarray(b, dtype="<f4").data)
        return digest.hexdigest()


def _shapes(modules: Mapping[str, LoraFactors]) -> dict[str, ModuleShape]:
    return {module: factors.shape for module, factors in modules.items()}


def _without_padding(factors: LoraFactors) -> tuple[Float32, Float32]:
    """The factors less the last rank components that are zero in both."""
    used = np.flatnonzero(factors.a.any(axis=1) | factors.b.any(axis=0))
    rank = int(used[-1]) + 1 if used.size else 0
    return factors.a[:rank], factors.b[:, :rank]
