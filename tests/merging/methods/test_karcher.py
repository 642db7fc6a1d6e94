import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import slerp
from pamctl.merging.methods.karcher import METHOD
from tests.merging.methods.combination_cases import RIGHT_ANGLE, coefficients, merged, random_tensors


def test_halfway_at_a_right_angle_at_the_mean_length() -> None:
    # (e + f) / sqrt 2 at the length 3.5: 2.47487 of each.
    np.testing.assert_allclose(merged(METHOD, RIGHT_ANGLE), [[2.47487, 0, 0], [0, 2.47487, 0]], atol=1e-5)


def test_of_two_it_is_the_point_at_the_second_weights_share_of_the_arc() -> None:
    # w = 1/4, 3/4: 67.5° from the first: (0.38268, 0.92388) at the length 3.75.
    np.testing.assert_allclose(
        merged(METHOD, RIGHT_ANGLE, [1, 3]), [[1.43506, 0, 0], [0, 3.46455, 0]], atol=1e-4
    )


def test_three_directions_at_right_angles() -> None:
    # (e + f + g) / sqrt 3 at the length (1 + 2 + 3) / 3 = 2: 1.15470 of each.
    tensors = [[[1, 0, 0], [0, 0, 0]], [[0, 2, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 3]]]
    np.testing.assert_allclose(merged(METHOD, tensors), [[1.1547, 1.1547, 0], [0, 0, 1.1547]], atol=1e-5)


def test_of_two_that_are_equally_long_it_is_slerp() -> None:
    one, other = random_tensors(0, 2)
    other *= np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(
        merged(METHOD, [one, other]), merged(slerp.METHOD, [one, other], t=0.5), atol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(2, 5))
def test_the_tangents_at_the_mean_add_up_to_zero(seed: int, count: int) -> None:
    tensors, weights = random_tensors(seed, count).reshape(count, -1, 1), np.arange(1.0, count + 1)
    mean = merged(METHOD, tensors, list(weights), max_iter=200, tol=1e-9)[:, 0]
    mean /= np.linalg.norm(mean)
    units = tensors[:, :, 0] / np.linalg.norm(tensors[:, :, 0], axis=1, keepdims=True)
    angles = np.arccos(units @ mean)[:, None]
    tangents = angles / np.sin(angles) * (units - np.cos(angles) * mean)
    np.testing.assert_allclose(weights @ tangents, 0, atol=1e-6)


def test_a_tensor_of_zero_only_shortens_the_mean() -> None:
    # Direction of the first, length (3 + 0) / 2.
    np.testing.assert_allclose(merged(METHOD, [RIGHT_ANGLE[0], np.zeros((2, 3))]), [[1.5, 0, 0], [0, 0, 0]])


def test_opposite_directions_of_equal_weight_leave_the_first() -> None:
    # Length (3 + 1) / 2 = 2.
    tensors = [[[3, 0, 0], [0, 0, 0]], [[-1, 0, 0], [0, 0, 0]]]
    np.testing.assert_allclose(merged(METHOD, tensors), [[2, 0, 0], [0, 0, 0]])


def test_a_weight_of_zero_does_not_pull() -> None:
    np.testing.assert_array_equal(coefficients(METHOD, RIGHT_ANGLE, [0, 1]), [0, 1])
    np.testing.assert_array_equal(coefficients(METHOD, [np.zeros((2, 3)), RIGHT_ANGLE[0]], [1, 0]), [0, 0])
