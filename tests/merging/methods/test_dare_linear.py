import numpy as np
import pytest
from hypothesis import given, settings

from pamctl.merging.methods.dare_linear import METHOD
from tests.merging.methods.dropping_cases import mean_over_seeds, norms
from tests.merging.methods.elementwise_cases import (
    COUNTS,
    PAIR,
    SEEDS,
    matrix,
    merged,
    random_inputs,
)

# Under 0.5, so kept: 4, 2, -3 of the one; -2, 1, 3 of the other. The numbers 0.5 are not under it.
DRAWS = [matrix([0.1, 0.6, 0.4], [0.9, 0.2, 0.5]), matrix([0.7, 0.3, 0.2], [0.8, 0.4, 0.5])]


def test_what_is_kept_is_divided_by_the_density() -> None:
    # Twice 4 0 2 / 0 -3 0 and twice 0 -2 1 / 0 3 0, summed
    found = merged(METHOD, PAIR, density=0.5, draws=DRAWS)
    np.testing.assert_array_equal(found, [[8, -4, 6], [0, 0, 0]])


def test_in_mergekit_it_is_scaled_so_that_the_sum_of_magnitudes_stays() -> None:
    # 12 / 9 times 4 0 2 / 0 -3 0 and 16 / 6 times 0 -2 1 / 0 3 0, summed
    found = merged(METHOD, PAIR, density=0.5, variant="mergekit", draws=DRAWS)
    np.testing.assert_allclose(found, [[16 / 3, -16 / 3, 16 / 3], [0, 4, 0]], rtol=1e-6)


@pytest.mark.parametrize("variant", METHOD.variants)
def test_without_rescaling_what_is_kept_stays(variant: str) -> None:
    found = merged(METHOD, PAIR, [2, -1], density=0.5, rescale=False, variant=variant, draws=DRAWS)
    np.testing.assert_array_equal(found, [[8, 2, 3], [0, -9, 0]])


@pytest.mark.parametrize("variant", METHOD.variants)
def test_each_adapter_has_its_density_and_lambda_scales_the_sum(variant: str) -> None:
    # All of the one; of the other what is under 0.35, its -2 and 1, without rescaling
    found = merged(METHOD, PAIR, density=(1.0, 0.35), rescale=False, lambda_=2, variant=variant, draws=DRAWS)
    np.testing.assert_array_equal(found, [[8, -6, 6], [1, -6, 3]])


def test_a_tensor_of_which_nothing_is_kept_is_0() -> None:
    draws = [np.full((2, 3), 0.5, np.float32)]
    found = merged(METHOD, [PAIR[0]], density=0.1, variant="mergekit", draws=draws)
    assert not found.any()


@settings(max_examples=30)
@given(SEEDS, COUNTS)
def test_at_density_1_it_is_the_weighted_sum(seed: int, count: int) -> None:
    inputs, weights = random_inputs(seed, count), [2.0, -1.0, 0.5, 3.0][:count]
    expected = sum(w * x.astype(np.float64) for w, x in zip(weights, inputs, strict=True))
    for variant in METHOD.variants:
        found = merged(METHOD, inputs, weights, density=1, variant=variant)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_its_mean_over_seeds_is_the_weighted_sum() -> None:
    mean, margin = mean_over_seeds(METHOD, PAIR, 2000, weights=[2, 1], density=0.3)
    assert (np.abs(mean - (2 * PAIR[0] + PAIR[1])) <= margin).all()


@settings(max_examples=30)
@given(SEEDS)
def test_mergekits_variant_keeps_the_sum_of_magnitudes(seed: int) -> None:
    before, after = norms(METHOD, seed, density=0.4)
    assert after == pytest.approx(before, rel=1e-5)


def test_two_seeds_drop_otherwise_and_one_seed_drops_the_same() -> None:
    (x,) = random_inputs(0, 1)
    one, same, other = (merged(METHOD, [x], density=0.5, seed=seed) for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()
