import numpy as np
import pytest

from pamctl.merging.methods import linear
from pamctl.merging.methods.task_arithmetic import METHOD
from tests.merging.methods.combination_cases import merged, random_tensors


def test_lambda_scales_the_weighted_sum() -> None:
    # 0.5 · (2 · x_1 - 1 · x_2)
    found = merged(METHOD, [[[1, 2, 3], [4, 5, 6]], [[2, 0, -2], [0, 4, 8]]], [2, -1], lambda_=0.5)
    np.testing.assert_array_equal(found, [[0, 2, 4], [4, 3, 2]])


def test_lambda_of_1_is_the_weighted_sum() -> None:
    tensors = random_tensors(0, 3)
    np.testing.assert_array_equal(
        merged(METHOD, tensors, [1, 2, 3]), merged(linear.METHOD, tensors, [1, 2, 3])
    )


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_lambda_may_be_0_or_negative(scale: float) -> None:
    tensor = random_tensors(0, 1)[0]
    np.testing.assert_array_equal(merged(METHOD, [tensor], lambda_=scale), scale * tensor)
