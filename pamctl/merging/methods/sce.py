"""Select the elements that vary most, weigh adapters by energy, elect a sign, merge those that have it.

    t_i    = x_i where the variance of the x_i at that element is among the largest of the tensor, else 0
    c_i    = w_i mean(t_i^2), over the tensor
    sign   = sign of sum t_i; a sum of 0 elects +
    result = sum over agreeing i of c_i t_i / sum over agreeing i of c_i

Parameters:
  select_topk  share of the elements with a variance above 0 that are kept, 0 to 1; 1 by default, which
               keeps all elements. The variance is that of the population. Elements that tie at the edge
               are all kept, and at least one is where the share is above 0. Where no element varies, as
               with one adapter or with copies of one, all are kept.

Weights, by default equal, multiply the energies; they must be at least 0, and one of 0 takes no part.
mergekit has none. It also takes all adapters as equal where the energies add up to less than 1e-6, which
those of LoRA deltas commonly do: here there is no such floor, so that the result scales with the
adapters.

Only at elements whose sum is 0 does negating all adapters not negate the result.

Sources: FuseChat, arXiv 2408.07990; arcee-ai/mergekit, merge_methods/sce.py.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pamctl_kernels import kth_largest_magnitudes, merge_agreeing

from pamctl.merging.methods.method import Elementwise, Float64, Method, Parameter, Piece, Settings, Stream
from pamctl.merging.methods.trimming import kept_count


@dataclass(frozen=True)
class Selection:
    """The least variance that is kept, None where all are, and a coefficient for each input taking part."""

    threshold: Any
    coefficients: list[float]


@dataclass(frozen=True)
class _Variances:
    """The variances of a stream's pieces, each a tuple of one block."""

    stream: Stream
    weights: Float64

    def __iter__(self) -> Iterator[tuple[Any]]:
        for piece in self.stream:
            yield (_variance(_of_weight(piece.blocks, self.weights)),)


def _measure(stream: Stream, weights: Float64, settings: Settings) -> Selection:
    threshold = _threshold(_Variances(stream, weights), settings["select_topk"])
    squares: list[list[Float64]] = [[] for _ in range(int(np.count_nonzero(weights)))]
    for piece in stream:
        for rows, x in zip(squares, _selected(piece, weights, threshold), strict=True):
            rows.append(np.asarray((x * x).sum(axis=1), np.float64))
    energies = [math.fsum(np.concatenate(rows)) for rows in squares]
    if not sum(energies):
        energies = [1.0] * len(energies)
    coefficients = [float(w) * energy for w, energy in zip(weights[weights != 0], energies, strict=True)]
    total = sum(coefficients)
    return Selection(threshold, [coefficient / total for coefficient in coefficients])


def _merge(piece: Piece, weights: Float64, settings: Settings, selection: Selection) -> Any:
    selected = _selected(piece, weights, selection.threshold)
    limits = [None] * len(selected)
    return merge_agreeing(selected, selection.coefficients, limits, elect="total", on_tie=1, divide="weight")


def _threshold(variances: _Variances, share: float) -> Any:
    """The least variance that is kept, None where all are."""
    if share >= 1:
        return None
    varying = sum(int((variance > 0).sum()) for (variance,) in variances)
    if not varying:
        return None
    return kth_largest_magnitudes(variances, lambda n: kept_count(share, varying))[0]


def _selected(piece: Piece, weights: Float64, threshold: Any) -> list[Any]:
    blocks = _of_weight(piece.blocks, weights)
    if threshold is None:
        return blocks
    mask = _variance(blocks) >= threshold
    return [x * mask for x in blocks]


def _of_weight(blocks: Sequence[Any], weights: Float64) -> list[Any]:
    """The blocks of the inputs that take part."""
    return [x for x, weight in zip(blocks, weights, strict=True) if weight]


def _variance(blocks: Sequence[Any]) -> Any:
    mean = sum(blocks[1:], blocks[0]) / len(blocks)
    return sum(((x - mean) ** 2 for x in blocks[1:]), (blocks[0] - mean) ** 2) / len(blocks)


METHOD = Method(
    name="sce",
    title="select by variance, weigh by energy, elect a sign, merge those that agree",
    idempotent=True,
    work=Elementwise(_merge, _measure),
    parameters=(
        Parameter(
            "select_topk", "share of the varying elements that are kept, 0 to 1", 1.0, least=0.0, most=1.0
        ),
    ),
    shares=True,
)
