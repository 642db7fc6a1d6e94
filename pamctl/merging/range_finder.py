"""The best approximation of a dense matrix at a rank, of which only blocks of rows are seen at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pamctl.merging.cut import Cut, Kept
from pamctl.merging.devices import matmul

Passes = Callable[[], Iterator[tuple[slice, Any]]]
"""One pass over the matrix: its rows in blocks, float32, numpy or jax arrays."""

OVERSAMPLED = 10
POWER_ITERATIONS = 2
SMALL = 256
"""The shorter side up to which the full decomposition is as quick."""


def approximated(passes: Passes, shape: tuple[int, int], cut: Cut) -> tuple[Any, Any, Kept]:
    """Factors b (m, k) and a (k, n) of about the best rank, and the energy that they keep, measured.

    Halko, Martinsson and Tropp (SIAM Review 2011), algorithm 4.4 with two power iterations: an orthonormal Q
    that spans about the strongest directions, then the exact decomposition of Q' M. Since b @ a projects M,
    the squared error is |M|^2 - |b @ a|^2, both of which are measured: no bound is taken on trust. The random
    start is the same for every call, so the result depends on the matrix alone.
    """
    if cut.svd == "full" or min(shape) <= SMALL:
        return _decomposed(passes, shape, cut)
    if cut.energy is None:
        assert cut.rank is not None
        if 2 * cut.rank >= min(shape):
            return _decomposed(passes, shape, cut)
        return _found(passes, shape, cut.rank, cut)
    rank = min(cut.rank or SMALL, SMALL) // 2
    while 2 * rank < min(shape):
        b, a, kept = _found(passes, shape, rank, cut)
        if kept.kept >= cut.energy * kept.whole or rank == cut.rank:
            return b, a, kept
        rank = min(2 * rank, cut.rank or 2 * rank)
    return _decomposed(passes, shape, cut)


def _found(passes: Passes, shape: tuple[int, int], rank: int, cut: Cut) -> tuple[Any, Any, Kept]:
    width = min(rank + OVERSAMPLED, *shape)
    start = np.random.Generator(np.random.Philox(key=0)).standard_normal((shape[1], width), dtype=np.float32)
    images = _times(passes, start)
    xp = images.__array_namespace__()
    for _ in range(POWER_ITERATIONS):
        images = _times(passes, _orthonormal(_transposed_times(passes, _orthonormal(images))[0]))
    basis = _orthonormal(images)
    projected, whole = _transposed_times(passes, basis)
    right, singular, left = xp.linalg.svd(projected, full_matrices=False)
    energies = np.asarray(singular, np.float64) ** 2
    count = cut.kept(energies[:rank], whole)
    root = xp.sqrt(singular[:count])
    b, a = matmul(basis, left[:count].T) * root, (right[:, :count] * root).T
    return b, a, Kept(min(float(energies[:count].sum()), whole), whole)


def _decomposed(passes: Passes, shape: tuple[int, int], cut: Cut) -> tuple[Any, Any, Kept]:
    """The same by the full decomposition, which holds the matrix whole."""
    blocks = [block for _, block in passes()]
    xp = blocks[0].__array_namespace__()
    matrix = xp.concat(blocks) if len(blocks) > 1 else blocks[0]
    wide = matrix.astype(np.float64) if isinstance(matrix, np.ndarray) and min(shape) <= SMALL else matrix
    left, singular, right = xp.linalg.svd(wide, full_matrices=False)
    energies = np.asarray(singular, np.float64) ** 2
    whole = float(energies.sum())
    count = cut.kept(energies, whole)
    root = xp.sqrt(singular[:count])
    return left[:, :count] * root, right[:count] * root[:, None], Kept(float(energies[:count].sum()), whole)


def _times(passes: Passes, right: Any) -> Any:
    """M @ right."""
    images = [matmul(block, block.__array_namespace__().asarray(right)) for _, block in passes()]
    return images[0].__array_namespace__().concat(images)


def _transposed_times(passes: Passes, left: Any) -> tuple[Any, float]:
    """M.T @ left, and the squared norm of M."""
    total, whole = None, 0.0
    for rows, block in passes():
        part = matmul(block.T, left[rows])
        total = part if total is None else total + part
        xp = block.__array_namespace__()
        whole += float(xp.sum(block * block, dtype=np.float64 if xp is np else None))
    return total, whole


def _orthonormal(columns: Any) -> Any:
    """An orthonormal basis of the columns, in float32; on the host by way of float64."""
    if isinstance(columns, np.ndarray):
        return np.linalg.qr(columns.astype(np.float64))[0].astype(np.float32)
    return columns.__array_namespace__().linalg.qr(columns)[0]
