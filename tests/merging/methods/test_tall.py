import numpy as np
from hypothesis import given, settings

from pamctl.merging.methods import consensus
from pamctl.merging.methods.tall import METHOD
from tests.merging.methods.elementwise_cases import COUNTS, ONE, PAIR, SEEDS, matrix, merged, random_inputs


def test_of_a_pair_the_mean_is_left_where_neither_is_a_fraction_of_the_other() -> None:
    # At lambda 0.4 the one's 0.5 is not above 0.4 · 1.5, nor its 1.5 above 0.4 · 6; -3 and 3 have the mean 0.
    found = merged(METHOD, PAIR, lambda_=0.4)
    np.testing.assert_array_equal(found, [[0.75, -1.5, 1.5], [0, 0, 0]])


def test_pams_lambda_of_a_tenth_is_the_default() -> None:
    pair = [matrix([1, 1, 1, 0]), matrix([9, 11, -9, 1])]
    np.testing.assert_array_equal(merged(METHOD, pair), [[5, 0, -4, 0]])


def test_at_k_0_it_is_the_mean_whatever_the_sum_of_the_weights() -> None:
    for scale in (1, 8):
        found = merged(METHOD, PAIR, [3 * scale, scale], k=0)
        np.testing.assert_array_equal(found, (3 * PAIR[0] + PAIR[1]) / 4)


def test_an_adapter_alone_in_a_module_is_kept() -> None:
    np.testing.assert_array_equal(merged(METHOD, [ONE]), ONE)
    np.testing.assert_array_equal(merged(METHOD, PAIR, [1, 0]), ONE)


@settings(max_examples=30)
@given(SEEDS, COUNTS)
def test_it_is_consensus_with_shares_for_weights(seed: int, count: int) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, 1.0, 0.5, 3.0][:count]
    shares = [weight / sum(weights) for weight in weights]
    found = merged(METHOD, inputs, weights)
    assert found.tobytes() == merged(consensus.METHOD, inputs, shares, lambda_=0.1).tobytes()
