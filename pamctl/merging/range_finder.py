"""The best approximation of a matrix at a rank, of which only products are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from pamctl.adapters.factors import LoraFactors
from pamctl.merging.cut import Cut, Kept
from pamctl.merging.devices import matmul

POWER_ITERATIONS = 2
SMALL = 256
"""The shorter side up to which the full decomposition is as quick."""


class Matrix(Protocol):
    """A matrix (m, n) that need not be there as a whole."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def times(self, right: Any) -> Any:
        """M @ right, (m, k)."""

    def transposed_times(self, left: Any) -> Any:
        """M.T @ left, (n, k)."""

    def squared_norm(self) -> float:
        """The sum of the squares of its elements."""

    def whole(self) -> Any:
        """All of it, dense."""


class Rows:
    """A matrix of which each pass makes the rows anew, or finds them where they are held.

    Args:
        passes: one pass over the matrix: its rows in blocks, float32, numpy or jax arrays.
    """

    def __init__(self, passes: Callable[[], Iterator[tuple[slice, Any]]], shape: tuple[int, int]) -> None:
        self._passes, self.shape = passes, shape

    def times(self, right: Any) -> Any:
        images = [matmul(block, block.__array_namespace__().asarray(right)) for _, block in self._passes()]
        return images[0].__array_namespace__().concat(images)

    def transposed_times(self, left: Any) -> Any:
        total = None
        for rows, block in self._passes():
            part = matmul(block.T, left[rows])
            total = part if total is None else total + part
        return total

    def squared_norm(self) -> float:
        total = 0.0
        for _, block in self._passes():
            xp = block.__array_namespace__()
            total += float(xp.sum(block * block, dtype=np.float64 if xp is np else None))
        return total

    def whole(self) -> Any:
        blocks = [block for _, block in self._passes()]
        return blocks[0].__array_namespace__().concat(blocks)


class SumOfDeltas:
    """A sum of deltas with a coefficient each, which stay the factors that they are."""

    def __init__(self, factors: Sequence[LoraFactors], coefficients: Sequence[float]) -> None:
        self._terms = [
            (np.float32(coefficient * each.scale), each.b, each.a)
            for each, coefficient in zip(factors, coefficients, strict=True)
        ]
        self.shape = (factors[0].b.shape[0], factors[0].a.shape[1])

    def times(self, right: Any) -> Any:
        return sum(scale * (b @ (a @ right)) for scale, b, a in self._terms)

    def transposed_times(self, left: Any) -> Any:
        return sum(scale * (a.T @ (b.T @ left)) for scale, b, a in self._terms)

    def squared_norm(self) -> float:
        total = 0.0
        for i, (scale, b, a) in enumerate(self._terms):
            for other, other_b, other_a in self._terms[i:]:
                product = np.sum((b.T @ other_b) * (a @ other_a.T), dtype=np.float64)
                total += (1.0 if other_a is a else 2.0) * float(scale) * float(other) * float(product)
        return max(total, 0.0)

    def whole(self) -> Any:
        return sum(scale * (b @ a) for scale, b, a in self._terms)


def approximated(matrix: Matrix, cut: Cut) -> tuple[Any, Any, Kept]:
    """Factors b (m, k) and a (k, n) of about the best rank, and the energy that they keep, measured.

    Halko, Martinsson and Tropp (SIAM Review 2011), algorithm 4.4 with two power iterations: an orthonormal Q
    that spans about the strongest directions, then the exact decomposition of Q' M. Since b @ a projects M,
    the squared error is |M|^2 - |b @ a|^2, both of which are measured: no bound is taken on trust. The random
    start is the same for every call, so the result depends on the matrix alone.
    """
    fewest = min(matrix.shape)
    if cut.svd == "full" or fewest <= SMALL:
        return _decomposed(matrix, cut)
    rank = cut.rank if cut.energy is None else min(cut.rank or SMALL, SMALL) // 2 or 1
    while rank is not None and 2 * rank < fewest:
        b, a, kept = _found(matrix, rank, cut)
        if cut.energy is None or kept.kept >= cut.energy * kept.whole or rank == cut.rank:
            return b, a, kept
        rank = min(2 * rank, cut.rank or 2 * rank)
    return _decomposed(matrix, cut)


def searched(rank: int) -> int:
    """In how many directions a rank is looked for: where the spectrum is flat, the more the better."""
    return 2 * max(rank, 10)


def _found(matrix: Matrix, rank: int, cut: Cut) -> tuple[Any, Any, Kept]:
    width = min(searched(rank), *matrix.shape)
    draw = np.random.Generator(np.random.Philox(key=0))
    images = matrix.times(draw.standard_normal((matrix.shape[1], width), dtype=np.float32))
    xp = images.__array_namespace__()
    for _ in range(POWER_ITERATIONS):
        images = matrix.times(_orthonormal(matrix.transposed_times(_orthonormal(images))))
    basis = _orthonormal(images)
    right, singular, left = xp.linalg.svd(matrix.transposed_times(basis), full_matrices=False)
    energies = np.asarray(singular, np.float64) ** 2
    whole = max(matrix.squared_norm(), float(energies.sum()))
    count = cut.kept(energies[:rank], whole)
    root = xp.sqrt(singular[:count])
    b, a = matmul(basis, left[:count].T) * root, (right[:, :count] * root).T
    return b, a, Kept(float(energies[:count].sum()), whole)


def _decomposed(matrix: Matrix, cut: Cut) -> tuple[Any, Any, Kept]:
    """The same by the full decomposition, which holds the matrix whole."""
    dense = matrix.whole()
    xp = dense.__array_namespace__()
    wide = dense.astype(np.float64) if isinstance(dense, np.ndarray) and min(dense.shape) <= SMALL else dense
    left, singular, right = xp.linalg.svd(wide, full_matrices=False)
    energies = np.asarray(singular, np.float64) ** 2
    whole = float(energies.sum())
    count = cut.kept(energies, whole)
    root = xp.sqrt(singular[:count])
    return left[:, :count] * root, right[:count] * root[:, None], Kept(float(energies[:count].sum()), whole)


def _orthonormal(columns: Any) -> Any:
    """An orthonormal basis of the columns, in float32; on the host by way of float64."""
    if isinstance(columns, np.ndarray):
        return np.linalg.qr(columns.astype(np.float64))[0].astype(np.float32)
    return columns.__array_namespace__().linalg.qr(columns)[0]
