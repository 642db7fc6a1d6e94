import numpy as np
import pytest

from pamctl.merging.methods.multislerp import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import RIGHT_ANGLE, coefficients, merged, random_tensors


def test_the_mean_direction_at_the_mean_length() -> None:
    # Directions e, f at a right angle: m / |m| = (e + f) / sqrt 2, length (3 + 4) / 2: 2.47487 of each.
    np.testing.assert_allclose(merged(METHOD, RIGHT_ANGLE), [[2.47487, 0, 0], [0, 2.47487, 0]], atol=1e-5)


def test_weights_bend_direction_and_length() -> None:
    # w = 1/4, 3/4: m = (0.25, 0.75), |m| = 0.79057; length 0.25 · 3 + 0.75 · 4 = 3.75.
    np.testing.assert_allclose(
        merged(METHOD, RIGHT_ANGLE, [1, 3]), [[1.18585, 0, 0], [0, 3.55756, 0]], atol=1e-5
    )


def test_weights_that_are_not_divided_scale_the_length() -> None:
    # w = 1, 3: the same direction, length 1 · 3 + 3 · 4 = 15, four times as much.
    np.testing.assert_allclose(
        merged(METHOD, RIGHT_ANGLE, [1, 3], normalize_weights=False),
        [[4.74342, 0, 0], [0, 14.23025, 0]],
        atol=1e-5,
    )


def test_three_directions() -> None:
    # Unit directions e, f, g: (e + f + g) / sqrt 3 at the length (1 + 2 + 3) / 3 = 2: 1.15470 of each.
    tensors = [[[1, 0, 0], [0, 0, 0]], [[0, 2, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 3]]]
    np.testing.assert_allclose(merged(METHOD, tensors), [[1.1547, 1.1547, 0], [0, 0, 1.1547]], atol=1e-5)


def test_two_opposite_directions_are_added_by_their_weights() -> None:
    # 1/2 · 3 e - 1/2 · 1 e = e
    tensors = [[[3, 0, 0], [0, 0, 0]], [[-1, 0, 0], [0, 0, 0]]]
    np.testing.assert_allclose(merged(METHOD, tensors), [[1, 0, 0], [0, 0, 0]])


def test_more_directions_that_cancel_are_refused() -> None:
    tensor = random_tensors(0, 1)[0]
    with pytest.raises(UsageRefusal, match="cancel"):
        merged(METHOD, [tensor, tensor, -tensor], [1, 1, 2])


def test_weights_that_sum_to_0_are_refused() -> None:
    with pytest.raises(UsageRefusal, match="multislerp divides by the sum of the weights"):
        coefficients(METHOD, random_tensors(0, 3), [1, 1, -2])


def test_inputs_of_zero_come_out_as_zero() -> None:
    assert not merged(METHOD, np.zeros((3, 2, 3))).any()
