"""Combinations on dense tensors: what the engine does with a method, without factors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.merging.methods.method import Combination, Method

Tensor = NDArray[np.float64]
Tensors = Sequence[Any] | Tensor

RIGHT_ANGLE: list[Any] = [[[3, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 4, 0]]]
"""Lengths 3 and 4, cosine 0."""
SIXTY_DEGREES: list[Any] = [[[1, 1, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]]
"""Both of length sqrt 2, inner product 1, so cosine 1/2."""


def gram_matrix(tensors: Tensors, by_row: bool = False) -> Tensor:
    """Inner products of tensors, (N, N), or of each of their rows, (rows, N, N)."""
    stacked = np.asarray(tensors, np.float64)
    return np.einsum("irc,jrc->rij" if by_row else "irc,jrc->ij", stacked, stacked)


def coefficients(
    method: Method, tensors: Tensors, weights: Sequence[float] | None = None, **given: Any
) -> Tensor:
    """(N,), or (rows, N) where the method works by row. `lambda_` stands for lambda."""
    work = method.work
    assert isinstance(work, Combination)
    settings = {each.name: each.default_of(given.get("variant")) for each in method.parameters}
    settings |= {"variant": method.variants[0]} if method.variants else {}
    settings |= {name.removesuffix("_"): value for name, value in given.items()}
    numbers = np.ones(len(tensors)) if weights is None else np.asarray(weights, np.float64)
    if method.shares:
        numbers = numbers / numbers.sum()
    gram = gram_matrix(tensors, work.by_row(settings)) if work.uses_gram else None
    return work.coefficients(gram, numbers, settings)


def merged(method: Method, tensors: Tensors, weights: Sequence[float] | None = None, **given: Any) -> Tensor:
    """The sum of the tensors with the method's coefficients."""
    found, stacked = coefficients(method, tensors, weights, **given), np.asarray(tensors, np.float64)
    return np.einsum("ri,irc->rc" if found.ndim == 2 else "i,irc->rc", found, stacked)


def random_tensors(seed: int, count: int, alike: float = 0.5) -> Tensor:
    """(count, 4, 5): tensors with so much of one direction in common."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((4, 5))
    return alike * common + rng.standard_normal((count, 4, 5))
