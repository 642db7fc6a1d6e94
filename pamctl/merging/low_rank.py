"""Exact arithmetic on deltas kept as factors: norms, sums and truncation without a dense matrix."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.factors import Float32, LoraFactors

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
    weighted = [
        each.b * np.float32(weight * each.scale) for each, weight in zip(factors, weights, strict=True)
    ]
    return LoraFactors(a, np.concatenate(weighted, axis=1), layer=factors[0].layer)


def cross_term(factors: Sequence[LoraFactors], weights: Sequence[float]) -> LoraFactors:
    """What averaging factors gets wrong: mean(delta) - mean(b) @ mean(a).

    It equals the sum of w_i (b_i - mean b) @ (a_i - mean a): quadratic in the drift from a shared start.

    Args:
        factors: one module of each adapter, equal in shape and with the scale folded in.
        weights: summing to 1.
    """
    mean_a: Float32 = sum(np.float32(w) * each.a for each, w in zip(factors, weights, strict=True))  # type: ignore[assignment]
    mean_b: Float32 = sum(np.float32(w) * each.b for each, w in zip(factors, weights, strict=True))  # type: ignore[assignment]
    drifts = [LoraFactors(each.a - mean_a, each.b - mean_b) for each in factors]
    return concatenate(drifts, weights)


def compress(factors: LoraFactors, rank: int) -> tuple[LoraFactors, float, float]:
    """The best approximation of a delta at a rank: what the truncated SVD of the dense delta gives.

    QR of both factors leaves a core of the factors' own rank to decompose. The singular values are split
    evenly between a and b, and the entry of largest magnitude in each column of b is positive, so that the
    result does not hang on the LAPACK in use. Components that are only rounding are dropped.

    Returns:
        The factors, of rank at most `rank` and at least 1; the energy (squared norm) kept; the energy before.
    """
    q_b, r_b = np.linalg.qr(factors.scale * _wide(factors.b))
    q_a, r_a = np.linalg.qr(_wide(factors.a).T)
    left, singular, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    noise = np.finfo(np.float64).eps * singular[0] * max(factors.b.shape[0], factors.a.shape[1])
    kept = max(1, min(rank, int(np.count_nonzero(singular > noise))))
    root = np.sqrt(singular[:kept])
    b, a = (q_b @ left[:, :kept]) * root, (right[:kept] @ q_a.T) * root[:, None]
    signs = _sign_of_largest(b)
    energies = singular**2
    a, b = (a * signs[:, None]).astype(np.float32), (b * signs).astype(np.float32)
    return LoraFactors(a, b, layer=factors.layer), float(energies[:kept].sum()), float(energies.sum())


def _sign_of_largest(columns: Float64) -> Float64:
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _wide(x: Float32) -> Float64:
    return x.astype(np.float64)
