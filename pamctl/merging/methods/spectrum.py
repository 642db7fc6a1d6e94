"""Singular vectors as the spectral methods use them: only directions that an input has, signs by a rule.

A singular value decomposition of a matrix that is not of full rank also returns vectors of its null space,
which are arbitrary. Methods that make a spectrum flat or orthogonalise vectors would give those the weight of
real ones, so they are left out here.
"""

from collections.abc import Sequence

import numpy as np

from pamctl.merging.methods.method import Float64

FLOAT32_ROUNDING = 2.0**-24
"""Directions weaker than this share of the strongest are rounding: the factors are float32 at best."""


def svd(matrix: Float64, scale: float | None = None) -> tuple[Float64, Float64, Float64]:
    """The decomposition (m, k), (k,), (k, n) of an (m, n) matrix of numerical rank k, 0 for one of zeros.

    Args:
        scale: what a singular value has to be no rounding of; by default the largest.
    """
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    k = int(np.count_nonzero(singular > FLOAT32_ROUNDING * (singular[0] if scale is None else scale)))
    return left[:, :k], singular[:k], right[:k]


def rank(matrix: Float64) -> int:
    """How many directions a matrix has."""
    return len(svd(matrix)[1])


def available_rank(cores: Sequence[Float64], shape: tuple[int, int]) -> int:
    """How many directions the inputs could have together, were none the same: R of the core.

    Args:
        shape: the (outputs, inputs) of the dense delta.
    """
    return min(*shape, sum(rank(core) for core in cores))


def leading(matrix: Float64, k: int) -> Float64:
    """The best approximation of rank k."""
    left, singular, right = svd(matrix)
    return (left[:, :k] * singular[:k]) @ right[:k]


def polar(vectors: Float64) -> Float64:
    """The nearest matrix whose columns, or rows where those are fewer, are orthonormal in what they span."""
    if not vectors.size:
        return vectors
    left, _, right = svd(vectors)
    return left @ right


def present(cores: Sequence[Float64], weights: Float64) -> list[Float64]:
    """The inputs times their weights, without those that come out as zero."""
    return [float(w) * core for core, w in zip(cores, weights, strict=True) if w and core.any()]


def span_rank(vectors: Float64) -> int:
    """How many dimensions columns span, however long each of them is."""
    lengths = np.linalg.norm(vectors, axis=0)
    return rank(vectors / np.where(lengths, lengths, 1.0))


def directions(vectors: Float64, basis: Float64, k: int) -> Float64:
    """The k strongest left singular vectors (R, k) of an (R, n) matrix, at least one.

    The sign of each is such that its dense vector, which `basis` (m, R) with orthonormal columns makes of it,
    has a positive entry of largest magnitude; of entries that are equal but for rounding the first counts.
    """
    strongest = np.linalg.svd(vectors, full_matrices=False)[0][:, : max(1, k)]
    dense = basis @ strongest
    magnitudes = np.abs(dense)
    first = (magnitudes >= (1 - FLOAT32_ROUNDING) * magnitudes.max(axis=0)).argmax(axis=0)
    signs: Float64 = np.where(dense[first, np.arange(dense.shape[1])] < 0, -1.0, 1.0)
    return strongest * signs
