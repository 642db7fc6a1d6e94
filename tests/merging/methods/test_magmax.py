import numpy as np
from hypothesis import given, settings

from pamctl.merging.methods.magmax import METHOD
from tests.merging.methods.elementwise_cases import ONE, OTHER, PAIR, SEEDS, merged, random_inputs


def test_each_element_is_the_one_of_largest_magnitude_and_of_a_tie_the_later() -> None:
    # -3 and 3 tie.
    np.testing.assert_array_equal(merged(METHOD, PAIR), [[4, -2, 2], [1.5, 3, -6]])
    np.testing.assert_array_equal(merged(METHOD, PAIR[::-1]), [[4, -2, 2], [1.5, -3, -6]])


def test_weights_multiply_before_the_comparison_and_lambda_after_it() -> None:
    # 3 · one is larger everywhere but at the last place, 4.5 against -6.
    found = merged(METHOD, PAIR, [3, 1], lambda_=0.5)
    np.testing.assert_array_equal(found, [[6, -1.5, 3], [0.75, -4.5, -3]])
    np.testing.assert_array_equal(merged(METHOD, [ONE, OTHER], [1, 0]), ONE)


@settings(max_examples=30)
@given(SEEDS)
def test_merging_one_after_the_other_is_merging_all_at_once(seed: int) -> None:
    first, second, third = random_inputs(seed, 3)
    folded = merged(METHOD, [merged(METHOD, [first, second]), third])
    assert folded.tobytes() == merged(METHOD, [first, second, third]).tobytes()


def test_the_order_of_the_adapters_matters_to_it() -> None:
    assert not METHOD.symmetric
