"""How the inputs of a merge relate: what averaging their factors would get wrong, and conflicts of sign."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.factors import Float32, LoraFactors, ModuleShape, Part

PROBES = 4
"""Random vectors by which norms are estimated where the exact ones take too long."""

_GRID = 64  # rows and columns of a delta of which the signs are looked at
_BLOCK = 1 << 17

Float64 = NDArray[np.float64]
ReadRows = Callable[[int, Part, slice], Float32]
"""Input, part, rows -> those rows of its factor, the scale folded into b."""


@dataclass(frozen=True)
class Relation:
    """What one module tells; several add up.

    Args:
        cross: squared norm of mean(delta) - mean(b) @ mean(a); NaN where the factors do not fit.
        mean: squared norm of mean(delta).
        weights: elements that were looked at.
        conflicts: those of them that are positive in one input and negative in another.
    """

    cross: float = 0.0
    mean: float = 0.0
    weights: int = 0
    conflicts: int = 0

    def __add__(self, other: "Relation") -> "Relation":
        return Relation(
            self.cross + other.cross,
            self.mean + other.mean,
            self.weights + other.weights,
            self.conflicts + other.conflicts,
        )

    @property
    def cross_term_error(self) -> float | None:
        """How far the mean of the factors is from that of the deltas, relative to it; None if both are 0."""
        if math.isnan(self.cross) or (self.cross == 0 and self.mean == 0):
            return None
        if self.cross == 0:
            return 0.0
        return math.sqrt(self.cross / self.mean) if self.mean else math.inf

    @property
    def conflict_percent(self) -> float | None:
        return 100 * self.conflicts / self.weights if self.weights else None


def cross_term(factors: Sequence[LoraFactors], shares: Sequence[float]) -> tuple[float, float]:
    """The squared norms of mean(delta) - mean(b) @ mean(a) and of mean(delta), of factors of one shape.

    The first is that of the sum of w_i (b_i - mean b) @ (a_i - mean a): quadratic in the drift from a shared
    start. Factors are taken relative to the first input's, so that little drift is not lost in rounding.
    """
    wrong, right = _pairings(tuple(shares), factors[0].rank)
    gram_a, gram_b = (
        _drift_gram_of_rows([each.a for each in factors]),
        _drift_gram_of_columns([each.b for each in factors]),
    )
    squares = [float(np.sum((gram_b @ pairing) * (pairing @ gram_a))) for pairing in (wrong, right)]
    return max(squares[0], 0.0), max(squares[1], 0.0)


@lru_cache(maxsize=64)
def _pairings(shares: tuple[float, ...], rank: int) -> tuple[Float64, Float64]:
    """Which parts of b meet which of a in the cross term and in the mean, where the first input comes first
    and each other one by its difference from it, in blocks of the rank."""
    count = len(shares)
    weights = np.asarray(shares, np.float64)
    drifts = np.eye(count)
    drifts[0, 0] = 0.0
    drifts -= weights @ drifts
    places = np.eye(count)
    places[:, 0] = 1.0
    wrong = np.kron(drifts.T @ (weights[:, None] * drifts), np.eye(rank))
    right = np.kron(places.T @ (weights[:, None] * places), np.eye(rank))
    return np.asarray(wrong, np.float64), np.asarray(right, np.float64)


def probed_cross_term(
    read: ReadRows, shape: ModuleShape, ranks: Sequence[int], shares: Sequence[float]
) -> tuple[float, float]:
    """What `cross_term` gives, estimated without bias from the lengths of a few random vectors' images.

    Its cost grows with the number of inputs, not with its square, and it holds one factor at a time.
    """
    vectors = np.random.default_rng(0).standard_normal((shape.inputs, PROBES), dtype=np.float32)
    images = [read(i, "a", slice(None)) @ vectors for i in range(len(ranks))]
    fits = len(set(ranks)) == 1
    mean_image = sum(np.float32(w) * image for w, image in zip(shares, images, strict=True)) if fits else None
    cross = mean = 0.0
    step = max(_BLOCK // max(ranks), 1)
    for start in range(0, shape.outputs, step):
        rows = slice(start, min(start + step, shape.outputs))
        right: NDArray[np.float32] = np.zeros((rows.stop - start, PROBES), np.float32)
        wrong = np.zeros_like(right)
        for i, (share, image) in enumerate(zip(shares, images, strict=True)):
            b = read(i, "b", rows)
            right += np.float32(share) * (b @ image)
            if mean_image is not None:
                wrong += np.float32(share) * (b @ (image - mean_image))
        mean += float(np.vdot(right, right))
        cross += float(np.vdot(wrong, wrong))
    return (cross / PROBES if fits else math.nan), mean / PROBES


def conflicts_in_factors(factors: Sequence[LoraFactors]) -> tuple[int, int]:
    """How many elements a and scaled b have, and how many of them have both signs among the inputs."""
    counts = [conflicts_among([each.a for each in factors]), conflicts_among([each.b for each in factors])]
    return sum(size for size, _ in counts), sum(found for _, found in counts)


def conflicts_in_deltas(read: ReadRows, module: str, shape: ModuleShape, inputs: int) -> tuple[int, int]:
    """The same of the deltas' elements where 64 of its rows cross 64 columns, drawn by the module's name."""
    key = hashlib.sha256(module.encode()).digest()
    draw = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    rows = np.sort(draw.choice(shape.outputs, min(_GRID, shape.outputs), replace=False))
    columns = np.sort(draw.choice(shape.inputs, min(_GRID, shape.inputs), replace=False))
    grids = []
    for i in range(inputs):
        b = np.concatenate([read(i, "b", slice(row, row + 1)) for row in rows])
        grids.append(b @ read(i, "a", slice(None))[:, columns])
    return conflicts_among(grids)


def conflicts_among(tensors: Sequence[Float32]) -> tuple[int, int]:
    """How many elements some tensors have, and how many of them are + in one tensor and - in another."""
    flat = [np.ascontiguousarray(tensor).reshape(-1) for tensor in tensors]
    found = 0
    for start in range(0, flat[0].size, _BLOCK):
        blocks = [each[start : start + _BLOCK] for each in flat]
        positive, negative = blocks[0] > 0, blocks[0] < 0
        for block in blocks[1:]:
            positive |= block > 0
            negative |= block < 0
        positive &= negative
        found += int(np.count_nonzero(positive))
    return flat[0].size, found


def _drift_gram_of_rows(factors: Sequence[Float32]) -> Float64:
    """The inner products of the rows of the first (rank, n) and of the others' differences from it."""
    first, *others = factors
    stacked = np.concatenate([first, *(other - first for other in others)])
    return (stacked @ stacked.T).astype(np.float64)


def _drift_gram_of_columns(factors: Sequence[Float32]) -> Float64:
    """The same of columns, (n, rank)."""
    first, *others = factors
    rank = first.shape[1]
    stacked = np.empty((first.shape[0], rank * len(factors)), np.float32)
    stacked[:, :rank] = first
    for i, other in enumerate(others, 1):
        np.subtract(other, first, out=stacked[:, i * rank : (i + 1) * rank])
    return (stacked.T @ stacked).astype(np.float64)
