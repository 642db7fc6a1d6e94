import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.method import Float32
from pamctl.merging.methods.sce import METHOD
from tests.merging.methods.elementwise_cases import ONE, PAIR, SEEDS, matrix, merged, random_inputs


def test_adapters_weigh_by_their_energy_where_they_agree() -> None:
    # Sums of squares 32.5 and 58.5, so 5 to 9: (-5 - 18) / 14, (10 + 9) / 14, (2.5 + 13.5) / 14.
    # 1.5 elects + at the first place; -3 and 3 cancel, and + is elected.
    found = merged(METHOD, PAIR)
    np.testing.assert_allclose(found, [[4, -23 / 14, 19 / 14], [16 / 14, 3, -6]], rtol=1e-6)


def test_only_the_elements_that_vary_most_are_kept() -> None:
    # Differences 6.5 1 1 / 1 6 7.5: half of six are 6.5, 6 and 7.5.
    found = merged(METHOD, PAIR, select_topk=0.5)
    np.testing.assert_allclose(found, [[4, 0, 0], [0, 3, -6]], rtol=1e-6)


def test_energies_are_those_of_what_is_kept() -> None:
    # The first column varies most and is left alone: 4 and 1, of squares 16 and 1: (16 · 4 + 1) / 17.
    found = merged(METHOD, [matrix([4, 10]), matrix([1, 10])], select_topk=0.5)
    np.testing.assert_allclose(found, [[65 / 17, 0]], rtol=1e-6)


def test_the_share_is_that_of_the_elements_with_a_variance() -> None:
    # One of the two that vary, not two of four
    found = merged(METHOD, [matrix([1, 1, 2, 5]), matrix([1, 1, 3, 8])], select_topk=0.5)
    assert np.flatnonzero(found).tolist() == [3]


def test_weights_multiply_the_energies_and_one_of_0_takes_no_part() -> None:
    # 5 · 9 to 9 · 5: the plain mean where they agree
    found = merged(METHOD, PAIR, [9, 5])
    np.testing.assert_allclose(found, [[4, -1.5, 1.5], [1, 3, -6]], rtol=1e-6)
    np.testing.assert_array_equal(merged(METHOD, PAIR, [1, 0]), ONE)


@pytest.mark.parametrize("inputs", [[ONE], [ONE, ONE, ONE]])
def test_where_nothing_varies_nothing_is_lost(inputs: list[Float32]) -> None:
    np.testing.assert_allclose(merged(METHOD, inputs, select_topk=0.1), ONE, rtol=1e-6)


def test_adapters_of_zeros_merge_to_zeros() -> None:
    assert not merged(METHOD, [0 * ONE, 0 * ONE]).any()


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 1))
def test_the_result_scales_with_adapters_as_small_as_deltas_are(seed: int, share: float) -> None:
    inputs = random_inputs(seed, 3)
    small = merged(METHOD, [x * np.float32(2**-16) for x in inputs], select_topk=share)
    np.testing.assert_array_equal(small, merged(METHOD, inputs, select_topk=share) * np.float32(2**-16))
