from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pamctl.merging.methods import ties
from pamctl.merging.methods.della import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.dropping_cases import norms
from tests.merging.methods.elementwise_cases import PAIR, SEEDS, matrix, merged, random_inputs

# At density 0.5 and epsilon 0.25 a row's probabilities by rank are 0.25, 0.5, 0.75:
# 0.75 0.25 0.5 / 0.25 0.75 0.5 for the one, 0.75 0.5 0.25 / 0.25 0.5 0.75 for the other.
# Under them, so kept: 4, 2, -3 of the one; -2, 1, 3, -6 of the other.
DRAWS = [matrix([0.7, 0.3, 0.4], [0.3, 0.7, 0.5]), matrix([0.8, 0.1, 0.2], [0.3, 0.4, 0.6])]
OPTIONS: dict[str, Any] = {"density": 0.5, "epsilon": 0.25, "draws": DRAWS}


def test_what_is_kept_is_divided_by_its_probability() -> None:
    # 4/.75 0 2/.5 / 0 -3/.75 0 and 0 -2/.5 1/.25 / 0 3/.5 -6/.75; both agree on 4 and 4; 6 outvotes -4.
    found = merged(METHOD, PAIR, **OPTIONS)
    np.testing.assert_allclose(found, [[16 / 3, -4, 4], [0, 6, -8]], rtol=1e-6)


def test_in_mergekit_it_is_scaled_so_that_the_sum_of_magnitudes_stays() -> None:
    # 12 / 9 times 4 0 2 / 0 -3 0 and 16 / 12 times 0 -2 1 / 0 3 -6; -4 and 4 cancel, and + is elected.
    found = merged(METHOD, PAIR, variant="mergekit", **OPTIONS)
    np.testing.assert_allclose(found, [[16 / 3, -8 / 3, 2], [0, 4, -8]], rtol=1e-6)


@pytest.mark.parametrize("variant", METHOD.variants)
def test_weights_vote_and_weigh_the_mean(variant: str) -> None:
    # Not rescaled, weights 3 and 1: 3 · -3 + 3 < 0; (3 · 2 + 1) / 4 where both agree.
    found = merged(METHOD, PAIR, [3, 1], rescale=False, variant=variant, **OPTIONS)
    np.testing.assert_array_equal(found, [[4, -2, 1.75], [0, -3, -6]])


@pytest.mark.parametrize("variant", METHOD.variants)
@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.9, 0.1), (0.05, 0.15), (0.95, 0.2)])
def test_probabilities_that_reach_0_or_1_are_refused(variant: str, density: float, epsilon: float) -> None:
    with pytest.raises(UsageRefusal, match="make probabilities from"):
        merged(METHOD, PAIR, density=density, epsilon=epsilon, variant=variant)


@pytest.mark.parametrize("variant", METHOD.variants)
@pytest.mark.parametrize("epsilon", [0, 0.15])
def test_density_1_drops_nothing_whatever_epsilon_is(variant: str, epsilon: float) -> None:
    found = merged(METHOD, PAIR, density=1, epsilon=epsilon, variant=variant)
    np.testing.assert_array_equal(found, merged(ties.METHOD, PAIR, density=1, variant="mergekit"))


def test_a_row_of_one_element_is_kept_with_the_density() -> None:
    column, draws = matrix([3], [4]), [matrix([0.49], [0.51])]
    found = merged(METHOD, [column], density=0.5, epsilon=0.25, draws=draws)
    np.testing.assert_array_equal(found, [[6], [0]])


def test_equal_magnitudes_rank_by_column() -> None:
    # Probabilities 0.25, 0.5, 0.75 for three equal elements: only the last is kept of numbers 0.6.
    draws = [np.full((1, 3), 0.6, np.float32)]
    found = merged(METHOD, [matrix([3, -3, 3])], density=0.5, epsilon=0.25, draws=draws)
    np.testing.assert_array_equal(found, [[0, 0, 4]])


@settings(max_examples=30)
@given(SEEDS)
def test_mergekits_variant_keeps_the_sum_of_magnitudes(seed: int) -> None:
    before, after = norms(METHOD, seed, density=0.4)
    assert after == pytest.approx(before, rel=1e-5)


def test_larger_elements_of_a_row_are_kept_more_often() -> None:
    (x,) = random_inputs(0, 1, (2000, 8))
    kept = merged(METHOD, [x], density=0.5, epsilon=0.4) != 0
    by_rank = np.take_along_axis(kept, np.argsort(np.abs(x), axis=1), axis=1).mean(axis=0)
    # Five standard errors of a share of 2000
    np.testing.assert_allclose(by_rank, np.linspace(0.1, 0.9, 8), atol=5 * 0.5 / 2000**0.5)
