import numpy as np

from pamctl.merging.methods.svd import METHOD
from tests.merging.methods.combination_cases import merged


def test_it_is_the_weighted_sum_of_deltas_before_it_is_cut() -> None:
    # 2 · x_1 - 0.5 · x_2
    found = merged(METHOD, [[[1, 2, 3], [4, 5, 6]], [[2, 0, -2], [0, 4, 8]]], [2, -0.5])
    np.testing.assert_array_equal(found, [[1, 4, 7], [8, 8, 8]])


def test_it_is_cut_to_the_largest_rank_of_the_inputs_and_works_on_deltas_only() -> None:
    assert METHOD.input_rank
    assert not METHOD.exact_rank
    assert METHOD.spaces == ("delta",)


def test_nothing_is_clamped_by_default_and_a_quantile_is_above_a_half() -> None:
    (clamp,) = METHOD.parameters
    assert (clamp.name, clamp.default, clamp.above, clamp.most) == ("clamp", None, 0.5, 1)
