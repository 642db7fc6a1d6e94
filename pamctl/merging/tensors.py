"""One tensor of every input of a merge, as pieces of rows that fit in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pamctl_kernels import weighted_average

from pamctl.merging.devices import HOST
from pamctl.merging.methods.method import Blocks, Combination, Elementwise, Float64, Piece, Result, Settings
from pamctl.merging.random_numbers import Draws


@dataclass(frozen=True)
class Tensors:
    """A tensor of each input, all of one shape.

    Args:
        shape: (rows, columns).
        rows: some rows of each.
        draws: the random numbers of each.
        inputs: see `Piece`.
        elements: about so many make a piece, at least a row.
    """

    shape: tuple[int, int]
    rows: Callable[[slice], Blocks]
    draws: Sequence[Draws]
    inputs: tuple[int, ...] | None = None
    elements: int = HOST.elements

    def pieces(self) -> Iterator[tuple[slice, Piece]]:
        """The tensors in pieces, and the rows that each holds."""
        height, width = self.shape
        step = max(self.elements // max(width, 1), 1)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            yield rows, Piece(self.rows(rows), self._draw(rows), self.inputs)

    def _draw(self, rows: slice) -> Callable[[int], Any]:
        shape = (rows.stop - rows.start, self.shape[1])

        def draw(place: int) -> Any:
            return self.draws[place].numbers(rows.start * shape[1], shape[0] * shape[1]).reshape(shape)

        return draw


@dataclass(frozen=True)
class TensorStream:
    """The pieces of some tensors one after the other, read anew each time.

    Args:
        each: does work on every tensor and gives the results in order.
    """

    each: Callable[[Callable[[Tensors], list[Any]]], Iterable[list[Any]]]

    def __iter__(self) -> Iterator[Piece]:
        for pieces in self.each(lambda tensors: [tensors]):
            for tensors in pieces:
                yield from (piece for _, piece in tensors.pieces())

    def map(self, work: Callable[[Piece], Result]) -> Iterator[Result]:
        """What comes of each piece, in order, found wherever `each` works."""
        for results in self.each(lambda tensors: [work(piece) for _, piece in tensors.pieces()]):
            yield from results


def stream_of(tensors: Tensors) -> TensorStream:
    """The pieces of one tensor."""
    return TensorStream(lambda work: [work(tensors)])


def measured(
    work: Combination | Elementwise, stream: TensorStream, weights: Float64, settings: Settings
) -> Any:
    """What the method has to know of its scope before it merges a piece of it: of a sum the coefficients."""
    if isinstance(work, Elementwise):
        return work.measure(stream, weights, settings) if work.measure else None
    if not work.uses_gram:
        return work.coefficients(None, weights, settings)
    if work.by_row(settings):
        return None
    gram = np.zeros((len(weights),) * 2)
    for piece in stream:
        gram += _gram(piece.blocks)
    return work.coefficients(gram, weights, settings)


def merged_piece(
    work: Combination | Elementwise, piece: Piece, weights: Float64, settings: Settings, known: Any
) -> Any:
    """One merged piece; `known` is what `measured` gave."""
    if isinstance(work, Elementwise):
        return work.merge(piece, weights, settings, known)
    if known is not None:
        return weighted_average(list(piece.blocks), np.asarray(piece.of_inputs(known), np.float32))
    coefficients = work.coefficients(_gram_by_row(piece.blocks), weights, settings).astype(np.float32)
    return sum(block * coefficients[:, i : i + 1] for i, block in enumerate(piece.blocks))


def _gram(blocks: Blocks) -> Float64:
    """The inner products of the inputs' elements in a piece, (N, N)."""
    flat = np.stack([np.asarray(block, np.float64).reshape(-1) for block in blocks])
    gram: Float64 = flat @ flat.T
    return gram


def _gram_by_row(blocks: Blocks) -> Float64:
    """The same of each row, (rows, N, N)."""
    rows = np.stack([np.asarray(block, np.float64) for block in blocks], axis=1)
    gram: Float64 = rows @ rows.transpose(0, 2, 1)
    return gram
