from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import ties
from pamctl.merging.methods.breadcrumbs_ties import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.elementwise_cases import PAIR, SEEDS, merged, random_inputs

SHARES: dict[str, Any] = {"density": 0.67, "gamma": 0.34}  # of three two and one, of six four and two


def test_the_papers_masks_are_followed_by_ties_mean() -> None:
    # Without the largest of each row: 0 -1 2 / 0.5 0 1.5 and 0 -2 1 / 1.5 3 0
    np.testing.assert_array_equal(merged(METHOD, PAIR, **SHARES), [[0, -1.5, 1.5], [1, 3, 1.5]])


def test_mergekits_masks_are_of_the_tensor_and_what_agrees_is_summed() -> None:
    # Without the two largest: 0 -1 2 / 0.5 0 1.5 and -2.5 -2 1 / 1.5 0 0
    found = merged(METHOD, PAIR, variant="mergekit", **SHARES)
    np.testing.assert_array_equal(found, [[-2.5, -3, 3], [2, 0, 1.5]])


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 1))
def test_at_gamma_0_mergekits_variant_is_ties(seed: int, density: float) -> None:
    inputs, options = random_inputs(seed, 3), {"density": density, "variant": "mergekit", "merge": "mean"}
    found = merged(METHOD, inputs, [3, 1, 2], gamma=0, **options)
    np.testing.assert_array_equal(found, merged(ties.METHOD, inputs, [3, 1, 2], **options))


def test_a_mean_with_negative_weights_is_refused_and_a_sum_is_not() -> None:
    with pytest.raises(UsageRefusal, match="one is negative"):
        merged(METHOD, PAIR, [1, -1])
    found = merged(METHOD, PAIR, [1, -1], density=1, gamma=0, merge="sum")
    # 4 + 2.5 agree; 1 and 1, where 2 outweighs; the others turned round
    np.testing.assert_array_equal(found, [[6.5, 2, 2], [-1.5, -6, 7.5]])
