import numpy as np
import pytest

from pamctl.merging.methods import slerp
from pamctl.merging.methods.nuslerp import METHOD
from tests.merging.methods.combination_cases import RIGHT_ANGLE, coefficients, merged, random_tensors


def test_the_weights_say_where_on_the_arc() -> None:
    # t = 3/4: sin 22.5° = 0.38268 of 3 and sin 67.5° = 0.92388 of 4.
    np.testing.assert_allclose(
        merged(METHOD, RIGHT_ANGLE, [1, 3]), [[1.14805, 0, 0], [0, 3.69552, 0]], atol=1e-5
    )


def test_it_is_slerp_at_the_second_weights_share() -> None:
    tensors = random_tensors(0, 2)
    np.testing.assert_array_equal(
        coefficients(METHOD, tensors, [1, 4]), coefficients(slerp.METHOD, tensors, t=0.8)
    )


@pytest.mark.parametrize("weights", [(1, -1), (0, 0), (5e-7, 0)])
def test_weights_without_a_sum_mean_halfway(weights: tuple[float, float]) -> None:
    # sin 45° of each
    np.testing.assert_allclose(coefficients(METHOD, RIGHT_ANGLE, weights), [0.70711, 0.70711], atol=1e-5)


def test_by_row_each_row_has_its_own_angle() -> None:
    # First row at a right angle: sin 45° of each. Second row parallel: half of each.
    tensors = [[[2, 0, 0], [0, 0, 2]], [[0, 2, 0], [0, 0, 4]]]
    np.testing.assert_allclose(
        merged(METHOD, tensors, row_wise=True), [[1.41421, 1.41421, 0], [0, 0, 3]], atol=1e-5
    )


@pytest.mark.parametrize("second", [2, -2, 1, -1])
def test_parallel_and_opposite_tensors_are_mixed_on_the_chord(second: float) -> None:
    tensor = random_tensors(0, 1)[0]
    np.testing.assert_array_equal(coefficients(METHOD, [tensor, second * tensor], [3, 1]), [0.75, 0.25])


def test_a_weight_alone_takes_its_tensor_exactly() -> None:
    np.testing.assert_array_equal(coefficients(METHOD, random_tensors(0, 2), [2, 0]), [1, 0])
    np.testing.assert_array_equal(coefficients(METHOD, random_tensors(0, 2), [0, 2]), [0, 1])
