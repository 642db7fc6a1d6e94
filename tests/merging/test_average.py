import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.merging.average import average_factors, shares
from pamctl.refusal import UsageRefusal
from tests.adapter_cases import random_factors


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12).filter(lambda weights: sum(weights) > 1e-3))
def test_shares_add_up_to_exactly_one_and_keep_their_proportions(weights: list[float]) -> None:
    found = np.array(shares(weights, len(weights)), np.float32)
    assert sum(found, np.float32(0)) == pytest.approx(1, abs=3e-7)
    np.testing.assert_allclose(found, np.array(weights) / sum(weights), atol=1e-6)


@pytest.mark.parametrize("adapters", range(2, 12))
def test_equal_adapters_average_to_themselves_bit_for_bit(adapters: int) -> None:
    factors = random_factors(0, 16, 24)
    mean = average_factors([factors] * adapters, shares(None, adapters))
    np.testing.assert_array_equal(mean.a, factors.a)
    np.testing.assert_array_equal(mean.b, factors.b)


def test_the_scale_is_folded_in_before_averaging() -> None:
    one, two = random_factors(0, 16, 16, scale=2.0), random_factors(1, 16, 16, scale=0.5)
    mean = average_factors([one, two], (0.25, 0.75))
    np.testing.assert_allclose(mean.a, 0.25 * one.a + 0.75 * two.a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean.b, 0.5 * one.b + 0.375 * two.b, rtol=1e-5, atol=1e-6)
    assert mean.scale == 1


def test_weights_one_and_zero_give_the_first() -> None:
    one, two = random_factors(0, 16, 16), random_factors(1, 16, 16)
    mean = average_factors([one, two], shares([1, 0], 2))
    np.testing.assert_array_equal(mean.a, one.a)
    np.testing.assert_array_equal(mean.b, one.b)


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [1, -1], [0, 0], [1, math.nan], [1, math.inf]])
def test_weights_that_make_no_average_are_a_usage_error(weights: list[float]) -> None:
    with pytest.raises(UsageRefusal, match="weights"):
        shares(weights, 2)


def test_weights_whose_sum_is_beyond_a_float_are_shares_like_any_other() -> None:
    assert shares([1e308, 1e308], 2) == (0.5, 0.5)
    assert shares([5e-324, 5e-324], 2) == (0.5, 0.5)
