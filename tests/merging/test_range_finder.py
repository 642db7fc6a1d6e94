from collections.abc import Iterator

import numpy as np
import pytest

from pamctl.merging import range_finder
from pamctl.merging.cut import Cut
from pamctl.merging.range_finder import Rows, SumOfDeltas, approximated
from tests.adapter_cases import delta, random_factors


def decaying(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A matrix whose singular values are 1, 1/2, 1/3, ..."""
    draw = np.random.default_rng(seed)
    rank = min(rows, columns)
    left, right = (np.linalg.qr(draw.standard_normal((size, rank)))[0] for size in (rows, columns))
    return np.asarray((left / np.arange(1, rank + 1)) @ right.T, np.float32)


def in_blocks(matrix: np.ndarray, step: int) -> Rows:
    def passes() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(matrix), step):
            rows = slice(start, min(start + step, len(matrix)))
            yield rows, matrix[rows]

    return Rows(passes, matrix.shape)


@pytest.mark.parametrize("shape", [(600, 400), (300, 700)])
def test_it_is_about_the_best_and_says_how_far_from_the_whole(shape: tuple[int, int]) -> None:
    matrix = decaying(*shape)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    b, a, kept = approximated(in_blocks(matrix, 64), Cut(20))
    assert (b.shape, a.shape) == ((shape[0], 20), (20, shape[1]))
    error = float(np.sum((matrix.astype(np.float64) - b.astype(np.float64) @ a) ** 2))
    assert kept.whole == pytest.approx(float(np.sum(singular**2)), rel=1e-5)
    assert kept.whole - kept.kept == pytest.approx(error, rel=1e-3)
    assert error <= 1.01 * float(np.sum(singular[20:] ** 2))


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_the_blocks_decide_nothing_but_rounding(step: int) -> None:
    matrix = decaying(300, 280)
    b, a, _ = approximated(in_blocks(matrix, step), Cut(10))
    whole_b, whole_a, _ = approximated(in_blocks(matrix, 300), Cut(10))
    np.testing.assert_allclose(b @ a, whole_b @ whole_a, atol=1e-5)


def test_in_full_it_is_the_best() -> None:
    matrix = decaying(300, 280)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    _, _, kept = approximated(in_blocks(matrix, 50), Cut(10, svd="full"))
    assert kept.kept == pytest.approx(float(np.sum(singular[:10] ** 2)), rel=1e-5)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999, 1.0])
def test_energy_takes_as_many_directions_as_it_needs(energy: float) -> None:
    matrix = decaying(400, 300)
    squares = np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2
    best = int(np.searchsorted(np.cumsum(squares), energy * squares.sum() * (1 - 1e-9))) + 1
    b, _, kept = approximated(in_blocks(matrix, 100), Cut(energy=energy))
    assert kept.kept >= energy * kept.whole * (1 - 1e-6)
    assert best - 1 <= b.shape[1] <= min(best + 2, 300)


def test_a_sum_of_deltas_is_never_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = [random_factors(seed, 500, 400, 30, scale) for seed, scale in ((0, 1.0), (1, 2.0))]
    matrix = SumOfDeltas(factors, [0.5, -1.0])
    dense = 0.5 * delta(factors[0]) - delta(factors[1])
    right, left = np.eye(500, 3, dtype=np.float32), np.eye(400, 3, dtype=np.float32)
    np.testing.assert_allclose(matrix.times(right), dense[:, :3], atol=1e-3)
    np.testing.assert_allclose(matrix.transposed_times(left), dense[:3].T, atol=1e-3)
    assert matrix.squared_norm() == pytest.approx(float(np.sum(dense**2)), rel=1e-5)
    monkeypatch.setattr(SumOfDeltas, "whole", None)
    b, a, kept = approximated(matrix, Cut(60))
    np.testing.assert_allclose(b @ a, dense, atol=2e-2)
    assert kept.kept == pytest.approx(kept.whole, rel=1e-4)


def test_a_matrix_of_zeros_has_a_rank_of_one() -> None:
    b, a, kept = approximated(in_blocks(np.zeros((300, 300), np.float32), 100), Cut(5))
    assert not (b @ a).any()
    assert (kept.kept, kept.whole) == (0, 0)


def test_small_matrices_are_decomposed_in_full() -> None:
    assert range_finder.SMALL >= 8
    matrix = decaying(8, 6)
    b, a, kept = approximated(in_blocks(matrix, 3), Cut(6))
    np.testing.assert_allclose(b @ a, matrix, atol=1e-6)
    assert kept.kept == pytest.approx(kept.whole)
