from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pamctl.merging.methods import dare_linear
from pamctl.merging.methods.della_linear import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.dropping_cases import mean_over_seeds, norms
from tests.merging.methods.elementwise_cases import COUNTS, PAIR, SEEDS, matrix, merged, random_inputs

# As in the tests of della: kept are 4, 2, -3 of the one; -2, 1, 3, -6 of the other.
DRAWS = [matrix([0.7, 0.3, 0.4], [0.3, 0.7, 0.5]), matrix([0.8, 0.1, 0.2], [0.3, 0.4, 0.6])]
OPTIONS: dict[str, Any] = {"density": 0.5, "epsilon": 0.25, "draws": DRAWS}


def test_what_is_kept_is_divided_by_its_probability_and_summed() -> None:
    # 4/.75 0 2/.5 / 0 -3/.75 0 plus 0 -2/.5 1/.25 / 0 3/.5 -6/.75
    found = merged(METHOD, PAIR, **OPTIONS)
    np.testing.assert_allclose(found, [[16 / 3, -4, 8], [0, 2, -8]], rtol=1e-6)


def test_in_mergekit_it_is_scaled_so_that_the_sum_of_magnitudes_stays() -> None:
    # 4/3 · (4 0 2 / 0 -3 0) plus 4/3 · (0 -2 1 / 0 3 -6), times lambda
    found = merged(METHOD, PAIR, variant="mergekit", lambda_=3, **OPTIONS)
    np.testing.assert_allclose(found, [[16, -8, 12], [0, 0, -24]], rtol=1e-6)


@settings(max_examples=30)
@given(SEEDS, COUNTS)
def test_at_density_1_it_is_the_weighted_sum(seed: int, count: int) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, -1.0, 0.5, 3.0][:count]
    expected = sum(w * x.astype(np.float64) for w, x in zip(weights, inputs, strict=True))
    for variant in METHOD.variants:
        found = merged(METHOD, inputs, weights, density=1, variant=variant)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=30)
@given(SEEDS)
def test_at_epsilon_0_it_is_dare(seed: int) -> None:
    inputs = random_inputs(seed, 2)
    for variant in METHOD.variants:
        options: dict[str, Any] = {"density": 0.4, "variant": variant, "seed": seed}
        dare = merged(dare_linear.METHOD, inputs, **options)
        np.testing.assert_allclose(merged(METHOD, inputs, epsilon=0, **options), dare, rtol=1e-6)


def test_its_mean_over_seeds_is_the_weighted_sum() -> None:
    mean, margin = mean_over_seeds(METHOD, PAIR, 2000, weights=[2, 1], density=0.4, epsilon=0.3)
    assert (np.abs(mean - (2 * PAIR[0] + PAIR[1])) <= margin).all()


def test_mergekits_variant_keeps_the_sum_of_magnitudes() -> None:
    before, after = norms(METHOD, 5, density=0.4)
    assert after == pytest.approx(before, rel=1e-5)


def test_probabilities_that_reach_0_or_1_are_refused() -> None:
    with pytest.raises(
        UsageRefusal, match=r"density 0\.9 and epsilon 0\.1 make probabilities from 0\.8 to 1"
    ):
        merged(METHOD, PAIR, density=0.9, epsilon=0.1)
