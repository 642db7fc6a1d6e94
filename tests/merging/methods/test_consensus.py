from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.consensus import METHOD
from tests.merging.methods.elementwise_cases import COUNTS, ONE, PAIR, SEEDS, matrix, merged, random_inputs


def test_elements_outside_k_masks_are_dropped() -> None:
    # At lambda 0.4 the one's 0.5 is not above 0.4 · 1.5, nor its 1.5 above 0.4 · 6.
    np.testing.assert_array_equal(merged(METHOD, PAIR), [[1.5, -3, 3], [0, 0, 0]])
    np.testing.assert_array_equal(merged(METHOD, PAIR, k=1), [[1.5, -3, 3], [2, 0, -4.5]])


def test_an_element_that_equals_its_bound_is_in_no_mask() -> None:
    # 2 is not above 0.5 · 4.
    assert not merged(METHOD, [matrix([2]), matrix([4])], lambda_=0.5).any()


def test_catastrophic_elements_are_dropped_by_k_1_and_selfish_ones_by_k_2() -> None:
    # Against 0.9 of the others: 1 < 1.8 for all; 5 > 1.8 alone; 3 > 0.9 and 2 > 1.8 but not 1.
    three = [matrix([1, 5, 3]), matrix([1, 1, 2]), matrix([1, 1, -1])]
    options: dict[str, Any] = {"lambda_": 0.9, "alpha": 0.5}
    np.testing.assert_array_equal(merged(METHOD, three, k=0, **options), [[1.5, 3.5, 2]])
    np.testing.assert_array_equal(merged(METHOD, three, k=1, **options), [[0, 3.5, 2]])
    np.testing.assert_array_equal(merged(METHOD, three, k=2, **options), [[0, 0, 2]])


def test_weights_multiply_first() -> None:
    # 0.5 · one: 2 -0.5 1 / 0.25 -1.5 0.75; beside the other only 2 and 1, 1.5 and 3 are near enough.
    found = merged(METHOD, PAIR, [0.5, 1])
    np.testing.assert_array_equal(found, [[-0.5, 0, 2], [0, 1.5, 0]])


def test_an_adapter_of_weight_0_takes_no_part() -> None:
    np.testing.assert_array_equal(merged(METHOD, PAIR, [1, 0]), ONE)
    assert not merged(METHOD, PAIR, [0, 0]).any()


@settings(max_examples=30)
@given(SEEDS, COUNTS, st.floats(0, 2))
def test_at_k_0_it_is_the_weighted_sum(seed: int, count: int, threshold: float) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, -1.0, 0.5, 3.0][:count]
    found = merged(METHOD, inputs, weights, k=0, alpha=0.5, lambda_=threshold)
    expected = sum(0.5 * w * x.astype(np.float64) for w, x in zip(weights, inputs, strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("copies", "left"), [(3, True), (4, False)])
def test_copies_outweigh_the_others_only_so_far(copies: int, left: bool) -> None:
    # At lambda 0.4: 1 > 0.4 · 2, but not 1 > 0.4 · 3.
    found = merged(METHOD, [ONE] * copies, [1 / copies] * copies)
    np.testing.assert_allclose(found, ONE if left else 0 * ONE, rtol=1e-6)


@settings(max_examples=30)
@given(SEEDS, COUNTS, st.floats(0, 1))
def test_the_more_masks_are_asked_for_the_less_is_left(seed: int, count: int, threshold: float) -> None:
    inputs = random_inputs(seed, count)
    left = [merged(METHOD, inputs, k=k, lambda_=threshold) != 0 for k in range(count + 1)]
    assert all((more | fewer == more).all() for more, fewer in pairwise(left))
