"""One adapted module: its two LoRA factors, their scale and their shape, read when asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.tensor_file import DTYPES

Float32 = NDArray[np.float32]


Part = Literal["a", "b"]


class Block(NamedTuple):
    """Some rows of one factor of a module: (rows, inputs) of `a` or (rows, rank) of `b`."""

    module: str
    part: Part
    values: Float32


@dataclass(frozen=True)
class Layer:
    """What kind of layer a module is: it decides how a format lays out the factors, not what they compute.

    Args:
        kind: for `conv` the columns of `a` are (channels, *kernel) in row-major order; for `embedding` they
            are the vocabulary, and the delta of the table is the transpose of scale · b @ a.
        kernel: the lengths of a convolution's kernel, one to three of them.
    """

    kind: Literal["linear", "conv", "embedding"] = "linear"
    kernel: tuple[int, ...] = ()


LINEAR = Layer()
EMBEDDING = Layer("embedding")


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
    layer: Layer = LINEAR

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
        return ModuleShape(self.rank, self.a.shape[1], self.b.shape[0], "F32", self.layer, self.scale)

    def folded(self) -> "LoraFactors":
        """The same delta with the scale multiplied into `b`: what pamctl compares and writes."""
        return self if self.scale == 1.0 else replace(self, b=folded(self.b, self.scale), scale=1.0)


@dataclass(frozen=True)
class ModuleShape:
    """What is known of a module without reading its numbers.

    Args:
        dtype: the one at rest, as F32 or BF16.
        scale: as its file gives it; it may be folded into the factors since.
    """

    rank: int
    inputs: int
    outputs: int
    dtype: str
    layer: Layer = LINEAR
    scale: float = field(default=1.0, compare=False)

    @property
    def parameters(self) -> int:
        return self.rank * (self.inputs + self.outputs)

    @property
    def bytes(self) -> int:
        return self.parameters * DTYPES[self.dtype].itemsize


class ComputedModules(Mapping[str, LoraFactors]):
    """Modules computed each time they are asked for and never kept: memory stays that of one module.

    Args:
        shapes: of each module.
        compute: gives a module's factors.
        rows: gives some rows of `a`, or of `b` with the scale folded in, for less than the whole takes.
        blocks: see `blocks`, where that can be done faster or in less memory than module by module.
    """

    def __init__(
        self,
        shapes: Mapping[str, ModuleShape],
        compute: Callable[[str], LoraFactors],
        rows: Callable[[str, Part, slice], Float32] | None = None,
        blocks: Callable[[Sequence[str]], Iterator[Block]] | None = None,
    ) -> None:
        self.shapes = shapes
        self._compute, self._rows, self._blocks = compute, rows, blocks

    def __getitem__(self, module: str) -> LoraFactors:
        if module not in self.shapes:
            raise KeyError(module)
        return self._compute(module)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def rows(self, module: str, part: Part, rows: slice) -> Float32:
        """Some rows of `a`, or of `b` with the scale folded in."""
        if self._rows is not None:
            return self._rows(module, part, rows)
        factors = self[module].folded()
        return (factors.a if part == "a" else factors.b)[rows]

    def blocks(self, order: Sequence[str]) -> Iterator[Block]:
        """Modules in this order: of each the rows of `a`, then those of `b` with the scale folded in.

        A part comes whole, or in several blocks of rows one after the other.
        """
        if self._blocks is not None:
            yield from self._blocks(order)
            return
        for module in order:
            factors = self[module].folded()
            yield Block(module, "a", factors.a)
            yield Block(module, "b", factors.b)

    def ordered(self, shapes: Mapping[str, ModuleShape]) -> "ComputedModules":
        """The same modules, listed as `shapes` lists them."""
        return ComputedModules(shapes, self._compute, self._rows, self._blocks)


def folded(b: Float32, scale: float) -> Float32:
    """`b` with the scale in it; what goes beyond float32 is Inf, which whoever writes it refuses."""
    with np.errstate(over="ignore"):
        return b * np.float32(scale)


def widest(dtypes: Iterable[str]) -> str:
    """The narrowest dtype that pamctl writes and that holds numbers of all of these."""
    found = {"F16" if dtype.startswith("F8") else dtype for dtype in dtypes}
    return found.pop() if found in ({"F16"}, {"BF16"}) else "F32"


def computed(dtypes: Iterable[str]) -> str:
    """The narrowest dtype for what is computed from these: BF16 has the range of F32, F16 has not."""
    return "BF16" if set(dtypes) == {"BF16"} else "F32"
