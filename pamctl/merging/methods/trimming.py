"""Which elements are kept by their magnitude: the largest of a scope, or those in a band of each row.

A share d of n elements is int(d n) of them as in peft and mergekit, but at least one where d is above 0:
a row of A or B may have fewer elements than 1 / d, and none of them is silently lost as a whole. Where
magnitudes tie at the edge of what is kept, all that tie are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pamctl_kernels import kth_largest_magnitudes

from pamctl.merging.methods.method import Parameter, Piece, Result, Stream, over


def density_parameter(default: float, above: float | None = None) -> Parameter:
    """The share that an input keeps."""
    return Parameter(
        "density",
        "share of its elements that an adapter keeps, 0 to 1",
        default,
        least=0.0,
        most=1.0,
        above=above,
        per_adapter=True,
    )


def kept_count(density: float, n: int) -> int:
    """How many of n elements a density keeps."""
    return n if density >= 1 else max(int(density * n), min(n, 1)) if density > 0 else 0


def thresholds(stream: Stream, densities: Sequence[float]) -> list[Any]:
    """The least magnitude that each input keeps in the scope; None for one that keeps everything."""
    trimmed = [i for i, density in enumerate(densities) if density < 1]
    counts = [partial(kept_count, densities[i]) for i in trimmed]
    found = kth_largest_magnitudes(BlocksOf(stream, trimmed), counts) if trimmed else ()
    limits = dict(zip(trimmed, found, strict=True))
    return [limits.get(i) for i in range(len(densities))]


@dataclass(frozen=True)
class BlocksOf:
    """One tuple of blocks a piece, of the inputs named and in that order; empty where one has none there."""

    stream: Stream
    inputs: Sequence[int]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(self._of, self.stream)

    def map(self, work: Callable[[tuple[Any, ...]], Result]) -> Iterable[Result]:
        """What comes of each tuple, in order, see `over`."""
        return over(self.stream, lambda piece: work(self._of(piece)))

    def _of(self, piece: Piece) -> tuple[Any, ...]:
        owners = range(len(piece.blocks)) if piece.inputs is None else piece.inputs
        blocks = dict(zip(owners, piece.blocks, strict=True))
        nothing = piece.blocks[0][:0]
        return tuple(blocks.get(i, nothing) for i in self.inputs)


def within(x: Any, low: Any, high: Any) -> Any:
    """x where low <= |x| <= high, else 0."""
    magnitudes = x.__array_namespace__().abs(x)
    return x * ((magnitudes >= low) & (magnitudes <= high))
