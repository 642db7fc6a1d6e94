import numpy as np
import pytest

from pamctl.merging.methods.model_stock import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import (
    RIGHT_ANGLE,
    SIXTY_DEGREES,
    coefficients,
    merged,
    random_tensors,
)


def test_two_at_60_degrees() -> None:
    # c = 1/2, t = 2 · 1/2 / (1 + 1/2) = 2/3: a third of each.
    np.testing.assert_allclose(merged(METHOD, SIXTY_DEGREES), [[2 / 3, 1 / 3, 1 / 3], [0, 0, 0]])


def test_three_at_60_degrees() -> None:
    # c = 1/2 for each pair, t = 3 · 1/2 / (1 + 2 · 1/2) = 3/4: a quarter of each.
    tensors = [*SIXTY_DEGREES, [[0, 1, 1], [0, 0, 0]]]
    np.testing.assert_allclose(coefficients(METHOD, tensors), [0.25, 0.25, 0.25])


def test_c_is_the_mean_over_all_pairs() -> None:
    # Cosines 1/2, 1, 1/2: c = 2/3, t = 3 · 2/3 / (1 + 2 · 2/3) = 6/7: 2/7 of each.
    tensors = [SIXTY_DEGREES[0], SIXTY_DEGREES[1], SIXTY_DEGREES[0]]
    np.testing.assert_allclose(coefficients(METHOD, tensors), [2 / 7] * 3)


def test_by_row_each_row_has_a_t_of_its_own() -> None:
    # First row c = 1/2, t = 2/3. Second row parallel, c = 1, t = 1: the mean of 2 and 3.
    tensors = [[[1, 1, 0], [0, 0, 2]], [[1, 0, 1], [0, 0, 3]]]
    np.testing.assert_allclose(
        merged(METHOD, tensors, filter_wise=True), [[2 / 3, 1 / 3, 1 / 3], [0, 0, 2.5]]
    )


def test_right_angles_leave_the_base() -> None:
    assert not merged(METHOD, RIGHT_ANGLE).any()


def test_opposed_inputs_leave_the_base_too() -> None:
    tensors = [[[1, 0, 0], [0, 0, 0]], [[-1, 0.1, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(coefficients(METHOD, tensors), [0, 0])


def test_the_result_is_at_most_the_mean() -> None:
    for seed in range(20):
        assert (coefficients(METHOD, random_tensors(seed, 4, alike=3.0)) <= 0.25).all()


def test_weights_are_refused() -> None:
    with pytest.raises(UsageRefusal, match="model-stock takes no weights"):
        coefficients(METHOD, random_tensors(0, 2), [1, 2])


def test_it_needs_two() -> None:
    assert METHOD.least == 2
