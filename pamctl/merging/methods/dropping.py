"""Dropping elements at random, as DARE and DELLA do, and making up for what is dropped.

An element is kept where its number from the draw is under its probability p. What is kept is then divided
by p, which leaves the expected value as it was, or, in mergekit's way, the tensor is scaled so that the
sum of its magnitudes is what it was.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.merging.methods.method import Parameter, Piece, Settings, Stream

Probabilities = Sequence[Any]
"""How likely an element of each block is kept: a number, or one for each element; None where all are."""

RESCALE = Parameter("rescale", "whether to make up for what is dropped", True)


def dropped(
    piece: Piece, probabilities: Probabilities, settings: Settings, ratios: Sequence[float] | None
) -> list[Any]:
    """The blocks with elements dropped, and the others scaled to make up for that where `rescale` says so.

    Args:
        ratios: what to multiply each input of the scope by; None to divide by the probabilities.
    """
    thinned = _thinned(piece, probabilities)
    if not settings["rescale"]:
        return thinned
    if ratios is not None:
        return [x * ratio for x, ratio in zip(thinned, piece.of_inputs(ratios), strict=True)]
    return [x if p is None else x / p for x, p in zip(thinned, probabilities, strict=True)]


def norm_ratios(stream: Stream, probabilities_of: Callable[[Piece], Probabilities]) -> list[float]:
    """For each input the sum of its magnitudes over that of what is kept of them; 1 where nothing is kept.

    The sums of rows are added exactly, so that the result does not hang on how rows are put into pieces.
    """
    before: dict[int, list[NDArray[np.float64]]] = {}
    after: dict[int, list[NDArray[np.float64]]] = {}
    for piece in stream:
        owners = range(len(piece.blocks)) if piece.inputs is None else piece.inputs
        thinned = _thinned(piece, probabilities_of(piece))
        for owner, whole, kept in zip(owners, piece.blocks, thinned, strict=True):
            before.setdefault(owner, []).append(_row_norms(whole))
            after.setdefault(owner, []).append(_row_norms(kept))
    return [_ratio(before[owner], after[owner]) for owner in sorted(before)]


def magnitude_ranks(x: Any) -> Any:
    """Each element's place among the magnitudes of its row, 0 for the smallest; those that tie by column."""
    if isinstance(x, np.ndarray):
        return _ranks_on_host(x)
    xp = x.__array_namespace__()
    order = xp.argsort(xp.abs(x), axis=1, stable=True)
    return xp.argsort(order, axis=1)


def _ranks_on_host(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """By sorting integers, a magnitude's bits above its column's: three times as fast as two argsorts."""
    columns = np.arange(x.shape[1])
    keys = (np.abs(x).view(np.int32).astype(np.int64) << 32) | columns
    keys.sort(axis=1)
    ranks = np.empty(x.shape, np.int64)
    np.put_along_axis(ranks, keys & 0xFFFFFFFF, columns[None], axis=1)
    return ranks


def _thinned(piece: Piece, probabilities: Probabilities) -> list[Any]:
    return [
        x if p is None else x * (piece.draw(i) < p)
        for i, (x, p) in enumerate(zip(piece.blocks, probabilities, strict=True))
    ]


def _row_norms(x: Any) -> NDArray[np.float64]:
    xp = x.__array_namespace__()
    return np.asarray(xp.sum(xp.abs(x), axis=1), np.float64)


def _ratio(before: Sequence[NDArray[np.float64]], after: Sequence[NDArray[np.float64]]) -> float:
    left = math.fsum(np.concatenate(after))
    return math.fsum(np.concatenate(before)) / left if left > 0 else 1.0
