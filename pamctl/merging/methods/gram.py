"""Lengths and angles of tensors of which only the inner products are known.

A Gram matrix is (..., N, N), its leading axes being rows that are taken one by one.
"""

import numpy as np

from pamctl.merging.methods.method import Float64

SMALLEST = 1e-8
"""A tensor that is no longer than this has no direction, as in mergekit's slerp."""


def norms(gram: Float64) -> Float64:
    """The length of each tensor, (..., N)."""
    return np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))


def norm_of_sum(gram: Float64, coefficients: Float64) -> Float64:
    """The length of the sum of the tensors with these coefficients, (..., N) -> (...)."""
    return np.sqrt(np.maximum(np.einsum("...i,...ij,...j->...", coefficients, gram, coefficients), 0.0))


def cosines(gram: Float64) -> Float64:
    """The cosine of each pair, (..., N, N), within [-1, 1]; 0 where one of them has no direction."""
    lengths = norms(gram)
    directed = lengths > SMALLEST
    divisors = np.where(directed, lengths, 1.0)
    both = directed[..., :, None] & directed[..., None, :]
    cosine = np.where(both, gram / divisors[..., :, None] / divisors[..., None, :], 0.0)
    return np.clip(cosine, -1.0, 1.0)
