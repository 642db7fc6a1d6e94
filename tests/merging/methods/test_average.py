import numpy as np

from pamctl.merging.methods.average import METHOD
from tests.merging.methods.combination_cases import merged


def test_the_average_of_two_is_half_of_their_sum() -> None:
    found = merged(METHOD, [[[1, 2, 3], [4, 5, 6]], [[3, 0, -3], [0, 1, 2]]])
    np.testing.assert_array_equal(found, [[2, 1, 0], [2, 3, 4]])


def test_weights_are_shares_of_their_sum() -> None:
    # (3 · x_1 + 1 · x_2) / 4
    found = merged(METHOD, [[[4, 8, 0], [0, 4, 0]], [[0, 0, 4], [4, 4, 8]]], [3, 1])
    np.testing.assert_array_equal(found, [[3, 6, 1], [1, 4, 2]])


def test_it_needs_shares_and_no_inner_products_in_either_space() -> None:
    assert METHOD.shares
    assert not METHOD.work.uses_gram  # type: ignore[union-attr]
    assert set(METHOD.spaces) == {"factor", "delta"}
