"""What a merging method is: its name, its parameters, and how it works on the tensors of a module.

A method is one of four kinds of work, and knows nothing of files, formats, ranks or memory:

- `Combination`: the result is a sum of the inputs with one coefficient each, which may depend on their inner
  products. It is exact on factors of any rank, and never dense.
- `Elementwise`: the result's elements depend on the inputs' elements, block of rows by block of rows.
- `Spectral`: the result is found in the R x R core in which all inputs live, R being the sum of their ranks.
- `Projected`: an elementwise method or a combination, in coordinates that are made from the cores.

Elements are those of the deltas, or in factor space those of A and of scale · B, each taken as a tensor of
its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

Space = Literal["factor", "delta"]
Settings = Mapping[str, Any]
"""The parameters of a method by name, each with a value, and `variant` where it has variants."""

Blocks = Sequence[Any]
"""The same rows of one tensor of each input, (rows, columns) float32: numpy or, on a device, jax arrays."""

Draw = Callable[[int], Any]
"""Place among the blocks -> float32 numbers in [0, 1) in the shape of that block, which depend on the seed,
what the input is, the tensor and the place in it, and on nothing else; asked twice, they are the same."""


@dataclass(frozen=True)
class Piece:
    """Some rows of one tensor, of every input that has it.

    Args:
        blocks: the rows of each.
        draw: the random numbers that belong to them.
        inputs: whose blocks they are, as places in the weights, in a parameter given per adapter and in what
            was measured; None where they are those of all, in order. They are fewer only where the scope is
            "global" and an adapter lacks the tensor.
    """

    blocks: Blocks
    draw: Draw
    inputs: tuple[int, ...] | None = None

    def of_inputs(self, values: Sequence[Any] | Float64) -> list[Any]:
        """From one value for each input of the scope, those of the inputs that have blocks here."""
        return [values[i] for i in self.inputs] if self.inputs is not None else list(values)


Stream = Iterable[Piece]
"""The pieces of all tensors of a scope, in order; each iteration reads them anew."""

Result = TypeVar("Result")


def over(stream: Stream, work: Callable[[Piece], Result]) -> Iterable[Result]:
    """What comes of each piece, in order; a stream that has a `map` of its own may work on several cores."""
    mapped: Callable[[Callable[[Piece], Result]], Iterable[Result]] = getattr(
        stream, "map", lambda w: map(w, stream)
    )
    return mapped(work)


@dataclass(frozen=True)
class Parameter:
    """A number or a choice that a method takes.

    Args:
        meaning: what it does, with its unit.
        default: that of the first variant; None where the method finds one by itself.
        least, most: the range of a number, both ends allowed.
        above: a number that it has to exceed.
        choices: the words it may be, for one that is no number.
        by_variant: the defaults of variants that have others.
        per_adapter: one number an input may be given instead of one for all.
    """

    name: str
    meaning: str
    default: float | str | bool | None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    by_variant: Mapping[str, float | str | bool | None] = field(default_factory=dict)
    per_adapter: bool = False
    whole: bool = False  # an integer

    def default_of(self, variant: str | None) -> float | str | bool | None:
        """The default where this variant is used."""
        return self.by_variant.get(variant or "", self.default)


@dataclass(frozen=True)
class Combination:
    """A sum of the inputs.

    Args:
        coefficients: (gram, weights, settings) -> one coefficient an input. `gram` holds the inner products
            of the inputs' tensors, (..., N, N), `weights` is (N,) and the result (..., N); leading axes are
            rows where `by_row` says so. Where `uses_gram` is False, `gram` is None and the result (N,).
        by_row: settings -> whether each output row has a Gram matrix and coefficients of its own.
    """

    coefficients: Callable[[Float64 | None, Float64, Settings], Float64]
    uses_gram: bool = True
    by_row: Callable[[Settings], bool] = lambda settings: False


@dataclass(frozen=True)
class Elementwise:
    """A function of the inputs' elements.

    Args:
        merge: (piece, weights (N,), settings, measured) -> the merged block, float32. Rows of a block are
            whole and may be merged without knowing the others; what has to be known of them is `measured`.
        measure: (stream, weights (N,), settings) -> what `merge` needs to know of the whole scope, such as a
            threshold an input; None where it needs nothing. It may go through the stream several times, or
            not at all. The scope is one tensor, or all tensors of the adapters where the settings hold
            `scope` = "global". N is the number of inputs that have anything in the scope.
    """

    merge: Callable[[Piece, Float64, Settings, Any], Any]
    measure: Callable[[Stream, Float64, Settings], Any] | None = None


@dataclass(frozen=True)
class Spectral:
    """A function of the inputs' cores.

    Args:
        merge: (cores, weights (N,), settings, shape) -> the merged core. A core is (R_out, R_in) float64 in
            orthonormal bases that all inputs of a module share: their deltas are left @ core @ right.T.
            `shape` is the (outputs, inputs) of the dense delta. The result must not depend on the basis.
    """

    merge: Callable[[Sequence[Float64], Float64, Settings, tuple[int, int]], Float64]


@dataclass(frozen=True)
class Bases:
    """The factors of one module of all inputs, in orthonormal bases that the inputs share.

    Args:
        left: (outputs, R_out) float64 with orthonormal columns, which span those of every input's B.
        right: (inputs, R_in) likewise for the rows of every A.
        b_parts: an input's scale · B in the left basis, (R_out, rank): scale · B = left @ it.
        a_parts: its A in the right basis, (rank, R_in): A = it @ right.T.
    """

    left: Float64
    right: Float64
    b_parts: Sequence[Float64]
    a_parts: Sequence[Float64]

    def cores(self) -> list[Float64]:
        """The core of each input, (R_out, R_in): its delta is left @ core @ right.T."""
        return [b @ a for b, a in zip(self.b_parts, self.a_parts, strict=True)]


@dataclass(frozen=True)
class Coordinates:
    """The inputs of one module as tensors in other coordinates, and the way back.

    A tensor is kept as a product, so that whoever merges elements makes as many of its rows as fit in memory.
    The coordinates are fixed up to nothing: also the signs of their vectors are decided by a rule.

    Args:
        factors: for each input (b, a), whose product is its tensor, (rows, columns) float64 for all alike.
        left: (outputs, rows) with orthonormal columns; None where rows are outputs already.
        right: (columns, inputs) with orthonormal rows; None where columns are inputs already.
    """

    factors: Sequence[tuple[Float64, Float64]]
    left: Float64 | None = None
    right: Float64 | None = None

    def tensors(self) -> list[Float64]:
        """The tensor of each input; its delta is left @ tensor @ right."""
        return [b @ a for b, a in self.factors]

    def restore(self, merged: Float64) -> tuple[Float64, Float64]:
        """Factors b (outputs, k) and a (k, inputs) whose product is the delta of a merged tensor, exactly."""
        if self.left is None:
            return (merged, np.eye(merged.shape[1])) if self.right is None else (merged, self.right)
        if self.right is None:
            return self.left, merged
        rows, columns = merged.shape
        return (self.left, merged @ self.right) if rows <= columns else (self.left @ merged, self.right)


@dataclass(frozen=True)
class Projected:
    """Another method, which the parameter `inner` names, in other coordinates.

    Its parameters, its kind of weights and its random numbers are those of the inner method.

    Args:
        project: (bases, settings) -> the inputs' coordinates.
        scope: the default of the inner method's `scope`, where it has that parameter; None leaves its own.
    """

    project: Callable[[Bases, Settings], Coordinates]
    scope: str | None = None


@dataclass(frozen=True)
class Method:
    """One way of merging; its module's docstring gives formula, parameters, units and source.

    Args:
        title: what it does, in a line.
        variants: implementations that compute something else under this name; the first is the default.
        spaces: where it can work; the first is that of `auto` for adapters that share no start.
        spaces_of_variants: where a variant can, if not in all of them.
        shares: whether the weights are divided by their sum, so that each must be at least 0.
        symmetric: whether the order of the inputs means nothing.
        random: whether it draws random numbers.
        idempotent: whether equal inputs, at the default weights and unscaled, merge to themselves: only then
            can factors that share their start stand for deltas.
        least, most: how many inputs it takes.
        exact_rank: whether the result keeps the rank it comes out with, so that no rank can be asked for.
        input_rank: whether the result is cut to the largest rank of the inputs unless a rank is asked for;
            always so where it is dense.
    """

    name: str
    title: str
    work: Combination | Elementwise | Spectral | Projected
    parameters: tuple[Parameter, ...] = ()
    variants: tuple[str, ...] = ()
    spaces: tuple[Space, ...] = ("delta", "factor")
    spaces_of_variants: Mapping[str, tuple[Space, ...]] = field(default_factory=dict)
    shares: bool = False
    symmetric: bool = True
    random: bool = False
    idempotent: bool = False
    least: int = 1
    most: int | None = None
    exact_rank: bool = False
    input_rank: bool = False
