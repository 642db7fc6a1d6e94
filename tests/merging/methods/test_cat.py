import numpy as np

from pamctl.merging.methods.cat import METHOD
from tests.merging.methods.combination_cases import merged


def test_it_is_the_weighted_sum_of_deltas() -> None:
    # 2 · x_1 - 0.5 · x_2
    found = merged(METHOD, [[[1, 2, 3], [4, 5, 6]], [[2, 0, -2], [0, 4, 8]]], [2, -0.5])
    np.testing.assert_array_equal(found, [[1, 4, 7], [8, 8, 8]])


def test_it_keeps_all_ranks_and_works_on_deltas_only() -> None:
    assert METHOD.exact_rank
    assert METHOD.spaces == ("delta",)
