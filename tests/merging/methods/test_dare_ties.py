import numpy as np
import pytest
from hypothesis import given, settings

from pamctl.merging.methods import ties
from pamctl.merging.methods.dare_ties import METHOD
from tests.merging.methods.dropping_cases import norms
from tests.merging.methods.elementwise_cases import PAIR, SEEDS, matrix, merged, random_inputs

# Under 0.5, so kept: 4, 2, -3 of the one; -2, 1, 3 of the other.
DRAWS = [matrix([0.1, 0.6, 0.4], [0.9, 0.2, 0.5]), matrix([0.7, 0.3, 0.2], [0.8, 0.4, 0.5])]


def test_peft_divides_by_the_density_then_by_how_many_agree() -> None:
    # 8 0 4 / 0 -6 0 and 0 -4 2 / 0 6 0: two agree on 4 and 2; -6 and 6 cancel, and + is elected.
    found = merged(METHOD, PAIR, density=0.5, draws=DRAWS)
    np.testing.assert_array_equal(found, [[8, -4, 3], [0, 6, 0]])


def test_pefts_weights_do_not_vote() -> None:
    # (3 · 4 + 2) / 2 where both agree
    found = merged(METHOD, PAIR, [3, 1], density=0.5, draws=DRAWS)
    np.testing.assert_array_equal(found, [[24, -4, 7], [0, 6, 0]])


def test_mergekit_keeps_the_sums_of_magnitudes_and_sums_what_agrees() -> None:
    # 4/3 · (4 0 2 / 0 -3 0) and 8/3 · (0 -2 1 / 0 3 0): 8 outvotes -4.
    found = merged(METHOD, PAIR, density=0.5, variant="mergekit", draws=DRAWS)
    np.testing.assert_allclose(found, [[16 / 3, -16 / 3, 16 / 3], [0, 8, 0]], rtol=1e-6)


def test_mergekits_mean_divides_by_the_weights_that_agree() -> None:
    # With 3 and 1: 3 · -4 + 8 < 0, so -4; (3 · 8/3 + 8/3) / 4 where both agree.
    found = merged(METHOD, PAIR, [3, 1], density=0.5, variant="mergekit", merge="mean", draws=DRAWS)
    np.testing.assert_allclose(found, [[16 / 3, -16 / 3, 8 / 3], [0, -4, 0]], rtol=1e-6)


def test_without_rescaling_what_is_kept_stays() -> None:
    found = merged(METHOD, PAIR, density=0.5, rescale=False, draws=DRAWS)
    np.testing.assert_array_equal(found, [[4, -2, 1.5], [0, 3, 0]])


@settings(max_examples=30)
@given(SEEDS)
def test_at_density_1_it_is_ties_without_trimming(seed: int) -> None:
    inputs = random_inputs(seed, 3)
    for variant, merge in (("peft", "mean"), ("mergekit", "mean"), ("mergekit", "sum")):
        options = {"density": 1, "variant": variant, "merge": merge}
        found = merged(METHOD, inputs, [3, 1, 2], **options)
        assert found.tobytes() == merged(ties.METHOD, inputs, [3, 1, 2], **options).tobytes()


def test_one_adapter_keeps_its_sum_of_magnitudes_in_mergekit() -> None:
    before, after = norms(METHOD, 3, density=0.4)
    assert after == pytest.approx(before, rel=1e-5)
