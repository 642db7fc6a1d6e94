import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.cart import METHOD
from tests.merging.methods.spectral_cases import Float64, dense, factors_of, merged, random_factors


def best(delta: Float64, k: int) -> Float64:
    left, singular, right = np.linalg.svd(delta, full_matrices=False)
    return left[:, :k] @ np.diag(singular[:k]) @ right[:k]


@pytest.mark.parametrize("rho", [0.08, 0.3, 0.5])
@pytest.mark.parametrize(("ranks", "outputs"), [((2, 2, 2), 12), ((1, 2, 4), 12), ((3, 3, 3), 7)])
def test_it_is_the_published_formula_on_the_dense_deltas(
    ranks: tuple[int, ...], outputs: int, rho: float
) -> None:
    factors = random_factors(0, ranks, outputs)
    deltas, k = dense(factors), math.ceil(rho * min(outputs, 9, sum(ranks)))
    mean = np.mean(deltas, axis=0)
    expected = mean + 0.6 * sum(best(delta - mean, k) for delta in deltas)
    np.testing.assert_allclose(merged(METHOD, factors, rho=rho, lambda_=0.6), expected, atol=1e-10)


def test_the_strongest_of_each_difference_is_added_to_the_mean() -> None:
    # mean diag(3, 2); differences diag(6, -2), (-3, 4), (-3, -2); half of the 2 directions is 1, so
    # diag(6, 0), (0, 4), (-3, 0) remain, whose sum is diag(3, 4)
    factors = factors_of([[9, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 6, 0]], [[0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(merged(METHOD, factors, rho=0.5), [[6, 0, 0], [0, 6, 0]], atol=1e-12)
    np.testing.assert_allclose(
        merged(METHOD, factors, rho=0.5, lambda_=0.5), [[4.5, 0, 0], [0, 4, 0]], atol=1e-12
    )


@pytest.mark.parametrize("settings", [{"lambda_": 0.0}, {"rho": 0.0}, {"rho": 1.0}])
def test_no_and_all_of_the_differences_give_the_weighted_mean(settings: dict[str, float]) -> None:
    factors = random_factors(1, (2, 2, 3))
    mean = sum(w * delta for w, delta in zip((0.5, 0.25, 0.25), dense(factors), strict=True))
    np.testing.assert_allclose(merged(METHOD, factors, [2, 1, 1], **settings), mean, atol=1e-10)


def test_two_inputs_give_their_mean() -> None:
    factors = random_factors(2, (3, 2))
    np.testing.assert_allclose(merged(METHOD, factors), sum(dense(factors)) / 2, atol=1e-10)


def test_weights_count_differences_by_their_share() -> None:
    factors = random_factors(3, (2, 2, 2))
    deltas, shares = dense(factors), (0.5, 0.3, 0.2)
    mean = sum(w * delta for w, delta in zip(shares, deltas, strict=True))
    strongest = sum(3 * w * best(delta - mean, 1) for w, delta in zip(shares, deltas, strict=True))
    np.testing.assert_allclose(merged(METHOD, factors, [5, 3, 2], rho=0.1), mean + strongest, atol=1e-10)


def test_an_input_of_weight_0_is_as_if_absent() -> None:
    factors = random_factors(4, (2, 2, 2, 3))
    np.testing.assert_allclose(merged(METHOD, factors, [1, 1, 1, 0]), merged(METHOD, factors[:3]), atol=1e-10)


def test_a_share_that_is_a_whole_number_of_directions_is_not_rounded_up() -> None:
    # 100 * 0.07 is 7.000000000000001
    factors = random_factors(5, (40, 30, 30), 120, 110)
    deltas = dense(factors)
    mean = np.mean(deltas, axis=0)
    expected = mean + sum(best(delta - mean, 7) for delta in deltas)
    np.testing.assert_allclose(merged(METHOD, factors, rho=0.07), expected, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(2, 12))
def test_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int) -> None:
    factors = random_factors(seed, ranks, outputs)
    np.testing.assert_allclose(merged(METHOD, factors), merged(METHOD, factors, turn=seed), atol=1e-7)


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_an_adapter_merge_to_it(copies: int) -> None:
    factors = random_factors(6, (3,)) * copies
    np.testing.assert_allclose(merged(METHOD, factors), dense(factors)[0], atol=1e-10)


def test_deltas_of_zero_and_single_numbers_merge() -> None:
    assert not merged(METHOD, [(np.zeros((4, 2)), np.ones((2, 3)))] * 3).any()
    np.testing.assert_allclose(merged(METHOD, factors_of([[1.0]], [[3.0]], [[8.0]])), [[4.0]])
