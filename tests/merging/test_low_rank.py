import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.adapters import LoraFactors
from pamctl.merging.cut import Cut
from pamctl.merging.low_rank import compress, concatenate, inner_product, squared_norm
from pamctl.merging.relation import cross_term
from tests.adapter_cases import delta, random_factors

SEEDS, RANKS, SCALES = st.integers(0, 500), st.integers(1, 6), st.sampled_from([1.0, 0.25, 3.0, -1.5])


@settings(max_examples=30, deadline=None)
@given(SEEDS, RANKS, RANKS, SCALES, SCALES)
def test_inner_products_and_norms_are_those_of_the_dense_deltas(
    seed: int, r1: int, r2: int, s1: float, s2: float
) -> None:
    one, two = random_factors(seed, 12, 9, r1, s1), random_factors(seed + 1000, 12, 9, r2, s2)
    assert inner_product(one, two) == pytest.approx(
        float(np.sum(delta(one) * delta(two))), rel=1e-9, abs=1e-9
    )
    assert squared_norm(one) == pytest.approx(float(np.sum(delta(one) ** 2)), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(SEEDS, RANKS, RANKS, SCALES, SCALES, st.floats(-2, 2))
def test_concatenation_is_the_weighted_sum_of_deltas(
    seed: int, r1: int, r2: int, s1: float, s2: float, weight: float
) -> None:
    one, two = random_factors(seed, 12, 9, r1, s1), random_factors(seed + 1000, 12, 9, r2, s2)
    summed = concatenate([one, two], [weight, 0.5])
    assert summed.rank == r1 + r2
    np.testing.assert_allclose(delta(summed), weight * delta(one) + 0.5 * delta(two), rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 4), st.floats(0, 2))
def test_the_cross_term_is_what_averaged_factors_get_wrong(seed: int, adapters: int, drift: float) -> None:
    start = random_factors(seed, 12, 9)
    away = [random_factors(seed + 1000 + i, 12, 9) for i in range(adapters)]
    factors = [
        LoraFactors(start.a + np.float32(drift) * w.a, start.b + np.float32(drift) * w.b) for w in away
    ]
    weights = [1 / adapters] * adapters
    mean_delta = sum(delta(each) for each in factors) / adapters
    mean_a = sum(each.a.astype(np.float64) for each in factors) / adapters
    mean_b = sum(each.b.astype(np.float64) for each in factors) / adapters
    cross, mean = cross_term(factors, weights)
    assert cross == pytest.approx(float(np.sum((mean_delta - mean_b @ mean_a) ** 2)), rel=1e-3, abs=1e-6)
    assert mean == pytest.approx(float(np.sum(mean_delta**2)), rel=1e-4)


@pytest.mark.parametrize("rank", range(1, 9))
def test_compression_is_the_truncated_svd_of_the_dense_delta(rank: int) -> None:
    factors = concatenate([random_factors(0, 12, 9, 4, 0.5), random_factors(1, 12, 9, 4, 2.0)], [0.3, 0.7])
    compressed, energy = compress(factors, Cut(rank))
    left, singular, right = np.linalg.svd(delta(factors))
    best = (left[:, :rank] * singular[:rank]) @ right[:rank]
    np.testing.assert_allclose(delta(compressed), best, atol=1e-4)
    assert energy.kept / energy.whole == pytest.approx(
        float((singular[:rank] ** 2).sum() / (singular**2).sum())
    )
    assert compressed.rank == rank
    assert compressed.a.dtype == compressed.b.dtype == np.float32


def test_compression_splits_the_singular_values_evenly_and_fixes_the_signs() -> None:
    compressed, _ = compress(random_factors(0, 12, 9), Cut(4))
    np.testing.assert_allclose(
        np.linalg.norm(compressed.a, axis=1), np.linalg.norm(compressed.b, axis=0), rtol=1e-5
    )
    largest = np.abs(compressed.b).argmax(axis=0)
    assert (compressed.b[largest, np.arange(4)] > 0).all()


def test_compression_does_not_depend_on_the_basis_the_factors_come_in() -> None:
    factors = random_factors(0, 12, 9)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0].astype(np.float32)
    one, two = (
        compress(factors, Cut(3))[0],
        compress(LoraFactors(turn.T @ factors.a, factors.b @ turn), Cut(3))[0],
    )
    np.testing.assert_allclose(one.a, two.a, atol=1e-5)
    np.testing.assert_allclose(one.b, two.b, atol=1e-5)


def test_components_that_are_only_rounding_are_dropped() -> None:
    factors = random_factors(0, 12, 9)
    compressed, energy = compress(concatenate([factors, factors], [0.5, 0.5]), Cut(8))
    assert compressed.rank == 4
    assert energy.kept == pytest.approx(energy.whole)
    np.testing.assert_allclose(delta(compressed), delta(factors), atol=1e-5)


def test_a_delta_of_zero_compresses_to_zero() -> None:
    compressed, energy = compress(
        LoraFactors(np.ones((4, 12), np.float32), np.zeros((9, 4), np.float32)), Cut(2)
    )
    assert (compressed.rank, energy.kept, energy.whole) == (1, 0, 0)
    assert not delta(compressed).any()
