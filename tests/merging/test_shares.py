import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.merging.shares import shares
from pamctl.refusal import UsageRefusal


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12).filter(lambda weights: sum(weights) > 1e-3))
def test_shares_add_up_to_exactly_one_and_keep_their_proportions(weights: list[float]) -> None:
    found = np.array(shares(weights, len(weights)), np.float32)
    assert sum(found, np.float32(0)) == pytest.approx(1, abs=3e-7)
    np.testing.assert_allclose(found, np.array(weights) / sum(weights), atol=1e-6)


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [1, -1], [0, 0], [1, math.nan], [1, math.inf]])
def test_weights_that_make_no_average_are_a_usage_error(weights: list[float]) -> None:
    with pytest.raises(UsageRefusal, match="weights"):
        shares(weights, 2)


def test_weights_whose_sum_is_beyond_a_float_are_shares_like_any_other() -> None:
    assert shares([1e308, 1e308], 2) == (0.5, 0.5)
    assert shares([5e-324, 5e-324], 2) == (0.5, 0.5)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8))
def test_shares_of_shares_are_the_same(weights: list[float]) -> None:
    found = shares(weights, len(weights))
    if sum(map(np.float32, found), np.float32(0)) == 1:
        assert shares(found, len(found)) == found
