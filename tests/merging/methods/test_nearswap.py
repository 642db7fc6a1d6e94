import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.nearswap import METHOD
from tests.merging.methods.elementwise_cases import ONE, PAIR, SEEDS, merged, random_inputs


def test_each_element_moves_towards_the_second_adapter_by_t_at_most() -> None:
    # Differences -6.5 -1 -1 / 1 6 -7.5, of which at most 2
    np.testing.assert_array_equal(merged(METHOD, PAIR, t=2), [[2, -2, 1], [1.5, -1, -0.5]])


def test_at_t_0_it_is_the_first_adapter_and_with_a_large_t_the_second() -> None:
    np.testing.assert_array_equal(merged(METHOD, PAIR, t=0), PAIR[0])
    np.testing.assert_array_equal(merged(METHOD, PAIR, t=8), PAIR[1])


def test_equal_elements_stay() -> None:
    np.testing.assert_array_equal(merged(METHOD, [ONE, ONE], t=0.1), ONE)


def test_weights_multiply_the_adapters_first() -> None:
    # From 2 · one: 8 -2 4 / 1 -6 3, by 1 towards the other
    np.testing.assert_array_equal(merged(METHOD, PAIR, [2, 1], t=1), [[7, -2, 3], [1.5, -5, 2]])


def test_a_module_of_one_adapter_is_passed_on() -> None:
    np.testing.assert_array_equal(merged(METHOD, [ONE]), ONE)


@settings(max_examples=30)
@given(SEEDS, st.floats(1e-6, 3))
def test_it_is_the_average_whose_weight_falls_with_the_difference(seed: int, t: float) -> None:
    inputs = random_inputs(seed, 2)
    a, b = (x.astype(np.float64) for x in inputs)
    weight = np.minimum(t / np.abs(a - b), 1)
    expected = weight * b + (1 - weight) * a
    np.testing.assert_allclose(merged(METHOD, inputs, t=t), expected, atol=1e-6)


def test_it_takes_two_adapters_and_their_order_matters() -> None:
    assert (METHOD.least, METHOD.most, METHOD.symmetric) == (2, 2, False)
