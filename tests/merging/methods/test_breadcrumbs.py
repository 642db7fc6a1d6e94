from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import magnitude_prune
from pamctl.merging.methods.breadcrumbs import METHOD
from tests.merging.methods.elementwise_cases import COUNTS, PAIR, SEEDS, matrix, merged, random_inputs

THIRD: dict[str, Any] = {"density": 0.34, "gamma": 0.34}  # of three one, of six two


def test_the_papers_shares_are_of_each_row() -> None:
    # Without the largest of each row the next is kept: 2, 1.5 of the one and -2, 3 of the other.
    found = merged(METHOD, PAIR, **THIRD)
    np.testing.assert_array_equal(found, [[0, -2, 2], [0, 3, 1.5]])


def test_mergekits_shares_are_of_the_tensor() -> None:
    # Without 4 and -3 the next are 2 and 1.5; without -6 and 3 they are -2.5 and -2.
    found = merged(METHOD, PAIR, variant="mergekit", **THIRD)
    np.testing.assert_array_equal(found, [[-2.5, -2, 2], [0, 0, 1.5]])


def test_mergekit_loses_fewer_outliers_where_else_the_density_is_missed() -> None:
    # Five of six are to be kept, so only one of two is lost: 4.
    found = merged(METHOD, [PAIR[0]], density=0.84, gamma=0.34, variant="mergekit")
    np.testing.assert_array_equal(found, [[0, -1, 2], [0.5, -3, 1.5]])


def test_the_papers_variant_loses_its_outliers_even_at_density_1() -> None:
    found = merged(METHOD, [PAIR[0]], density=1, gamma=0.34)
    np.testing.assert_array_equal(found, [[0, -1, 2], [0.5, 0, 1.5]])


def test_weights_and_lambda_scale_and_each_adapter_has_its_shares() -> None:
    # Of the one the largest of each row goes and the next stays; of the other the largest alone stays.
    found = merged(METHOD, PAIR, [2, -1], density=0.34, gamma=(0.34, 0.0), lambda_=2)
    np.testing.assert_array_equal(found, [[5, 0, 8], [0, 0, 6 + 12]])


@pytest.mark.parametrize("variant", METHOD.variants)
def test_a_share_of_outliers_under_one_element_loses_none(variant: str) -> None:
    for gamma in (0.0, 0.01):
        found = merged(METHOD, [PAIR[0]], density=0.67, gamma=gamma, variant=variant)
        np.testing.assert_array_equal(found, [[4, 0, 2], [0, -3, 1.5]])


@pytest.mark.parametrize("variant", METHOD.variants)
def test_a_positive_density_keeps_something_and_0_nothing(variant: str) -> None:
    for gamma in (0.0, 0.34, 0.99):
        kept = merged(METHOD, [PAIR[0]], density=0.01, gamma=gamma, variant=variant)
        assert np.count_nonzero(kept) == (2 if variant == "paper" else 1)
        assert not merged(METHOD, PAIR, density=0, gamma=gamma, variant=variant).any()


@pytest.mark.parametrize("variant", METHOD.variants)
def test_magnitudes_that_are_all_equal_are_all_kept(variant: str) -> None:
    equal = matrix([2, -2, 2], [2, 2, -2])
    np.testing.assert_array_equal(merged(METHOD, [equal], variant=variant, **THIRD), equal)


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 1))
def test_at_gamma_0_it_is_trimming(seed: int, density: float) -> None:
    inputs = random_inputs(seed, 2)
    of_tensor = merged(METHOD, inputs, [2, -1], density=density, gamma=0, variant="mergekit")
    np.testing.assert_array_equal(of_tensor, merged(magnitude_prune.METHOD, inputs, [2, -1], density=density))
    by_row = [
        merged(magnitude_prune.METHOD, [x[row : row + 1] for x in inputs], [2, -1], density=density)
        for row in range(5)
    ]
    found = merged(METHOD, inputs, [2, -1], density=density, gamma=0)
    np.testing.assert_array_equal(found, np.concatenate(by_row))


@settings(max_examples=30)
@given(SEEDS, COUNTS)
def test_at_density_1_and_gamma_0_it_is_the_weighted_sum(seed: int, count: int) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, -1.0, 0.5, 3.0][:count]
    expected = sum(w * x.astype(np.float64) for w, x in zip(weights, inputs, strict=True))
    for variant in METHOD.variants:
        found = merged(METHOD, inputs, weights, density=1, gamma=0, variant=variant)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=30)
@given(SEEDS, st.floats(0.05, 1), st.floats(0, 0.5))
def test_what_is_kept_lies_below_the_outliers_and_above_the_rest(
    seed: int, density: float, gamma: float
) -> None:
    (x,) = random_inputs(seed, 1)
    found = merged(METHOD, [x], density=density, gamma=gamma)
    lost = int(gamma * 8)
    kept = min(max(int(density * 8), 1), 8 - lost)
    ranked = np.take_along_axis(found, np.argsort(-np.abs(x), axis=1), axis=1)
    assert not ranked[:, :lost].any()
    assert ranked[:, lost : lost + kept].all()
    assert not ranked[:, lost + kept :].any()
