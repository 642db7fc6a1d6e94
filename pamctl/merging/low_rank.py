"""Exact arithmetic on deltas kept as factors: norms, sums and truncation without a dense matrix."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.factors import Float32, LoraFactors
from pamctl.merging.cut import Cut, Kept
from pamctl.merging.methods.method import Bases

Float64 = NDArray[np.float64]


def inner_product(first: LoraFactors, second: LoraFactors) -> float:
    """The sum of the element-wise product of two deltas, from Gram matrices of their ranks."""
    outputs = _wide(first.b).T @ _wide(second.b)
    inputs = _wide(first.a) @ _wide(second.a).T
    return first.scale * second.scale * float(np.sum(outputs * inputs))


def squared_norm(factors: LoraFactors) -> float:
    """The sum of the squares of a delta's elements."""
    return max(inner_product(factors, factors), 0.0)


def concatenate(factors: Sequence[LoraFactors], weights: Sequence[float]) -> LoraFactors:
    """The weighted sum of deltas, exact, as factors whose rank is the sum of the ranks: peft's `cat`."""
    a = np.concatenate([each.a for each in factors])
    weighted = [each.folded().b * np.float32(weight) for each, weight in zip(factors, weights, strict=True)]
    return LoraFactors(a, np.concatenate(weighted, axis=1), layer=factors[0].layer)


def shared_bases(factors: Sequence[LoraFactors]) -> Bases:
    """Orthonormal bases of all outputs and all inputs that the deltas of one module use, by QR in float64."""
    left, b_core = np.linalg.qr(np.concatenate([each.scale * _wide(each.b) for each in factors], axis=1))
    right, a_core = np.linalg.qr(np.concatenate([_wide(each.a) for each in factors]).T)
    ends = np.cumsum([each.rank for each in factors])[:-1]
    return Bases(
        left, right, np.split(b_core, ends, axis=1), [part.T for part in np.split(a_core, ends, axis=1)]
    )


def compress(factors: LoraFactors, cut: Cut) -> tuple[LoraFactors, Kept]:
    """The best approximation of a delta at a rank: what the truncated SVD of the dense delta gives.

    QR of both factors leaves a core of the factors' own rank to decompose: see `decomposed`.

    Returns:
        The factors, of rank at least 1, and how much of the delta's energy they keep.
    """
    bases = shared_bases([factors])
    (core,) = bases.cores()
    shorter, kept = decomposed(core, bases, cut)
    return replace(shorter, layer=factors.layer), kept


def decomposed(core: Float64, bases: Bases, cut: Cut) -> tuple[LoraFactors, Kept]:
    """The factors of left @ core @ right.T, the strongest directions first.

    The singular values are split evenly between a and b, and the entry of largest magnitude in each column of
    b is positive, so that the result does not hang on the LAPACK in use. Components that are only rounding
    are dropped.
    """
    left, singular, right = np.linalg.svd(core, full_matrices=False)
    noise = np.finfo(np.float64).eps * singular[0] * max(bases.left.shape[0], bases.right.shape[0])
    energies = singular**2
    whole = float(energies.sum())
    real = max(1, int(np.count_nonzero(singular > noise)))
    count = cut.kept(energies[:real], whole)
    root = np.sqrt(singular[:count])
    b, a = (bases.left @ left[:, :count]) * root, (right[:count] @ bases.right.T) * root[:, None]
    signs = _sign_of_largest(b)
    a, b = (a * signs[:, None]).astype(np.float32), (b * signs).astype(np.float32)
    return LoraFactors(a, b), Kept(float(energies[:count].sum()), whole)


def padded(factors: LoraFactors, rank: int) -> LoraFactors:
    """The same delta in factors of a rank that is at least their own, filled up with zeros."""
    missing = rank - factors.rank
    if not missing:
        return factors
    a, b = np.pad(factors.a, ((0, missing), (0, 0))), np.pad(factors.b, ((0, 0), (0, missing)))
    return replace(factors, a=a, b=b)


def _sign_of_largest(columns: Float64) -> Float64:
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _wide(x: Float32) -> Float64:
    return x.astype(np.float64)
