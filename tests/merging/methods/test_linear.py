import numpy as np
import pytest

from pamctl.merging.methods.linear import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import coefficients, merged, random_tensors

TENSORS = [[[1, 2, 3], [4, 5, 6]], [[2, 0, -2], [0, 4, 8]]]


def test_the_weighted_sum_takes_weights_as_they_are() -> None:
    # 2 · x_1 - 0.5 · x_2
    np.testing.assert_array_equal(merged(METHOD, TENSORS, [2, -0.5]), [[1, 4, 7], [8, 8, 8]])


def test_without_weights_it_is_the_sum() -> None:
    np.testing.assert_array_equal(merged(METHOD, TENSORS), [[3, 2, 1], [4, 9, 14]])


def test_mergekits_variant_divides_by_the_sum_of_the_weights() -> None:
    # (3 · x_1 + 1 · x_2) / 4
    found = merged(METHOD, TENSORS, [3, 1], variant="mergekit")
    np.testing.assert_array_equal(found, [[1.25, 1.5, 1.75], [3, 4.75, 6.5]])


@pytest.mark.parametrize("weights", [(1, -1), (0, 0), (0.1, 0.2, -0.3)])
def test_mergekits_variant_refuses_weights_that_sum_to_0(weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageRefusal, match="sum of the weights"):
        coefficients(METHOD, random_tensors(0, len(weights)), weights, variant="mergekit")


def test_one_minus_one_on_equal_inputs_is_zero_and_one_zero_is_the_first() -> None:
    assert not merged(METHOD, [TENSORS[0], TENSORS[0]], [1, -1]).any()
    np.testing.assert_array_equal(merged(METHOD, TENSORS, [1, 0]), TENSORS[0])


def test_opposite_weights_give_the_opposite() -> None:
    tensors = random_tensors(0, 3)
    one, other = merged(METHOD, tensors, [1, -2, 0.3]), merged(METHOD, tensors, [-1, 2, -0.3])
    np.testing.assert_array_equal(one, -other)


def test_pefts_variant_hands_on_the_weights_whose_roots_go_on_the_factors() -> None:
    assert METHOD.variants == ("paper", "mergekit", "peft")
    np.testing.assert_array_equal(coefficients(METHOD, TENSORS, [0.5, -1], variant="peft"), [0.5, -1])
