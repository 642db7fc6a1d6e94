"""The singular values and directions of a delta, from the Gram matrices of its factors and never dense."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.factors import LoraFactors

Float64 = NDArray[np.float64]

_BLOCK = 1 << 16  # numbers that are widened at a time: in float64 they fit a core's cache
_NEGLIGIBLE = 1e-12  # of the strongest direction's energy: what is weaker is rounding of float32 factors


@dataclass(frozen=True)
class Directions:
    """The singular value decomposition of a delta, its singular vectors as combinations of its factors.

    Args:
        energies: (k,) the squares of the singular values, the largest first.
        left: (rank, k); the left singular vectors are scale · b @ left.
        right: (rank, k); the right singular vectors are a.T @ right.
    """

    energies: Float64
    left: Float64
    right: Float64


def gram(factors: LoraFactors) -> tuple[Float64, Float64]:
    """(a @ a.T, b.T @ b) with the scale in the second, both (rank, rank)."""
    columns = factors.a.T
    return inner(columns, columns), inner(factors.b, factors.b) * factors.scale**2


def cross_gram(one: LoraFactors, two: LoraFactors) -> tuple[Float64, Float64]:
    """(a1 @ a2.T, b1.T @ b2) with both scales in the second, both (rank 1, rank 2)."""
    return inner(one.a.T, two.a.T), inner(one.b, two.b) * (one.scale * two.scale)


def inner(x: NDArray[Any], y: NDArray[Any]) -> Float64:
    """x.T @ y in float64, of (n, p) and (n, q), widening no more than a block at a time."""
    total = np.zeros((x.shape[1], y.shape[1]))
    rows = max(_BLOCK // max(total.shape), 1)
    for start in range(0, x.shape[0], rows):
        block = x[start : start + rows].astype(np.float64)
        # of one array with itself numpy computes half of the product
        total += block.T @ (block if y is x else y[start : start + rows].astype(np.float64))
    return total


def energies(gram_a: Float64, gram_b: Float64) -> Float64:
    """The squares of the singular values of b @ a, the largest first, from `gram`."""
    root = _root(gram_b)[0]
    return np.maximum(np.linalg.eigvalsh(root.T @ gram_a @ root)[::-1], 0)


def directions(gram_a: Float64, gram_b: Float64) -> Directions:
    """The singular values of b @ a that are not negligible, with their directions, from `gram`."""
    root, unroot = _root(gram_b)
    squares, rotation = np.linalg.eigh(root.T @ gram_a @ root)
    kept = np.flatnonzero(squares > max(_NEGLIGIBLE * squares.max(initial=0), 0))[::-1]
    left = unroot @ rotation[:, kept]
    return Directions(squares[kept], left, gram_b @ left / np.sqrt(squares[kept]))


def entropy(energies: Float64) -> float | None:
    """The entropy in nats of the energies as shares of their sum, None where all are 0.

    Its exponential is the effective rank of Roy and Vetterli (EUSIPCO 2007), taken on the energies, which are
    the squares of the singular values, instead of on the values.
    """
    whole = float(energies.sum())
    if not whole:
        return None
    shares = energies[energies > 0] / whole
    return max(float(-(shares * np.log(shares)).sum()), 0.0)


def effective_rank(spectra: Iterable[Float64]) -> float | None:
    """The effective rank of deltas: their own, weighted by energy, as a geometric mean; None where all are 0.

    That is the exponential of the entropy of a direction once its module is known.
    """
    known = [(float(spectrum.sum()), entropy(spectrum)) for spectrum in spectra]
    whole = sum(energy for energy, _ in known)
    if not whole:
        return None
    return math.exp(sum(energy / whole * of_module for energy, of_module in known if of_module is not None))


def rank_that_keeps(share: float, spectra: Iterable[Float64]) -> int:
    """The smallest rank at which deltas truncated to it keep this share of their energy together."""
    longest: Float64 = np.zeros(0)
    for spectrum in spectra:
        if spectrum.size > longest.size:
            longest, spectrum = spectrum.copy(), longest
        longest[: spectrum.size] += spectrum
    kept = np.cumsum(longest)
    return int(np.searchsorted(kept, share * kept[-1])) + 1 if kept.size and kept[-1] else 0


def _root(symmetric: Float64) -> tuple[Float64, Float64]:
    """R with R @ R.T equal to a positive matrix, and its inverse transposed, both without the null space."""
    squares, vectors = np.linalg.eigh(symmetric)
    kept = squares > max(_NEGLIGIBLE * squares.max(initial=0), 0)
    lengths = np.sqrt(squares[kept])
    return vectors[:, kept] * lengths, vectors[:, kept] / lengths
