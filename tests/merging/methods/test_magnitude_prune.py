from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.magnitude_prune import METHOD
from tests.merging.methods.elementwise_cases import (
    COUNTS,
    PAIR,
    SEEDS,
    matrix,
    merged,
    merged_all,
    random_inputs,
)


def test_trimmed_adapters_are_summed_with_their_weights() -> None:
    # Of the one 4, 2, -3, of the other -2.5, 3, -6; twice the first and the second, times 1/2.
    found = merged(METHOD, PAIR, [2, 1], density=0.5, lambda_=0.5)
    np.testing.assert_array_equal(found, [[2.75, 0, 2], [0, -1.5, -3]])


def test_the_share_is_that_of_each_tensor_unless_the_scope_is_global() -> None:
    tensors = [[matrix([10, 5])], [matrix([2, 3])]]
    each = [merged(METHOD, tensor) for tensor in tensors]
    np.testing.assert_array_equal(np.concatenate(each), [[10, 0], [0, 3]])
    whole = merged_all(METHOD, tensors, scope="global")
    np.testing.assert_array_equal(np.concatenate(whole), [[10, 5], [0, 0]])


def test_an_adapter_that_lacks_a_tensor_takes_its_share_of_those_it_has() -> None:
    tensors: list[list[Any]] = [[matrix([10, 2]), None], [matrix([5, 3]), matrix([8, 1])]]
    found = merged_all(METHOD, tensors, [1, -3], scope="global")
    np.testing.assert_array_equal(np.concatenate(found), [[10, 0], [5 - 24, 0]])


@settings(max_examples=30)
@given(SEEDS, COUNTS)
def test_at_density_1_it_is_the_weighted_sum(seed: int, count: int) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, -1.0, 0.5, 3.0][:count]
    expected = sum(w * x.astype(np.float64) for w, x in zip(weights, inputs, strict=True))
    np.testing.assert_allclose(merged(METHOD, inputs, weights, density=1), expected, atol=1e-5)


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 1))
def test_the_number_kept_is_the_share_rounded_down_but_at_least_one(seed: int, density: float) -> None:
    (x,) = random_inputs(seed, 1)
    kept = np.count_nonzero(merged(METHOD, [x], density=density))
    assert kept == (max(int(density * x.size), 1) if density else 0)
