import numpy as np
import pytest

from pamctl.merging.methods.slerp import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import (
    RIGHT_ANGLE,
    SIXTY_DEGREES,
    coefficients,
    merged,
    random_tensors,
)


def test_halfway_at_a_right_angle() -> None:
    # sin 45° / sin 90° = 0.70711 of each: 3 and 4 become 2.12132 and 2.82843.
    np.testing.assert_allclose(merged(METHOD, RIGHT_ANGLE), [[2.12132, 0, 0], [0, 2.82843, 0]], atol=1e-5)


def test_a_third_of_the_way_over_60_degrees() -> None:
    # sin 40° / sin 60° = 0.74223 of the first, sin 20° / sin 60° = 0.39493 of the second.
    np.testing.assert_allclose(
        merged(METHOD, SIXTY_DEGREES, t=1 / 3), [[1.13716, 0.74223, 0.39493], [0, 0, 0]], atol=1e-5
    )


def test_at_0_it_is_the_first_and_at_1_the_second_exactly() -> None:
    for seed in range(20):
        np.testing.assert_array_equal(coefficients(METHOD, random_tensors(seed, 2), t=0.0), [1, 0])
        np.testing.assert_array_equal(coefficients(METHOD, random_tensors(seed, 2), t=1.0), [0, 1])


def test_equally_long_tensors_keep_their_length() -> None:
    np.testing.assert_allclose(np.linalg.norm(merged(METHOD, SIXTY_DEGREES, t=0.2)), np.sqrt(2), rtol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_nearly_parallel_and_opposite_tensors_are_mixed_on_the_chord(sign: int) -> None:
    # cos = 1 / sqrt(1 + 0.03^2) = 0.99955
    tensors = [[[1, 0, 0], [0, 0, 0]], [[sign, 0.03, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(coefficients(METHOD, tensors, t=0.25), [0.75, 0.25])


def test_just_short_of_parallel_there_is_an_arc() -> None:
    # cos = 1 / sqrt(1 + 0.04^2) = 0.99920: a = 2.2906°, sin(a / 2) / sin(a) = 0.5 / cos(a / 2) = 0.5001.
    tensors = [[[1, 0, 0], [0, 0, 0]], [[1, 0.04, 0], [0, 0, 0]]]
    np.testing.assert_allclose(coefficients(METHOD, tensors), [0.5001, 0.5001], atol=1e-6)
    assert coefficients(METHOD, tensors)[0] > 0.5


def test_a_tensor_of_zero_is_at_a_right_angle_to_the_other() -> None:
    np.testing.assert_allclose(
        coefficients(METHOD, [RIGHT_ANGLE[0], np.zeros((2, 3))]), [0.70711] * 2, atol=1e-5
    )


def test_weights_are_refused_for_t() -> None:
    with pytest.raises(UsageRefusal, match=r"slerp takes no weights, and 0\.3,0\.7 are given") as refused:
        coefficients(METHOD, random_tensors(0, 2), [0.3, 0.7])
    assert "nuslerp" in refused.value.way_on


def test_it_takes_two_in_order() -> None:
    assert (METHOD.least, METHOD.most, METHOD.symmetric) == (2, 2, False)
