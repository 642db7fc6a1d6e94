from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.ties import METHOD
from pamctl.refusal import UsageRefusal
from tests.merging.methods.elementwise_cases import (
    ONE,
    OTHER,
    PAIR,
    SEEDS,
    matrix,
    merged,
    merged_all,
    random_inputs,
)

VARIANTS = METHOD.variants
# The larger side where they differ; the mean where they agree; 3 where they cancel, for + is elected.
AT_DENSITY_1 = [[4, -1.5, 1.5], [1, 3, -6]]


def test_the_default_is_the_papers_variant_at_density_a_fifth_of_the_whole_adapter() -> None:
    defaults = {each.name: each.default for each in METHOD.parameters}
    assert (METHOD.variants[0], defaults["density"], defaults["scope"]) == ("paper", 0.2, "global")
    scope = next(each for each in METHOD.parameters if each.name == "scope")
    assert [scope.default_of(variant) for variant in VARIANTS] == ["global", "tensor", "tensor"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_density_1_and_equal_weights_the_variants_agree(variant: str) -> None:
    np.testing.assert_array_equal(merged(METHOD, PAIR, density=1, variant=variant), AT_DENSITY_1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_adapter_is_trimmed_to_its_share_first(variant: str) -> None:
    # Half of six: 4, 2, -3 of the one and -2.5, 3, -6 of the other. 1.5 at the first place elects +.
    found = merged(METHOD, PAIR, density=0.5, variant=variant)
    np.testing.assert_array_equal(found, [[4, 0, 2], [0, 3, -6]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_adapter_may_have_a_density_of_its_own(variant: str) -> None:
    # All of the one; of the other only -6, the sixth of six.
    found = merged(METHOD, PAIR, density=(1.0, 0.17), variant=variant)
    np.testing.assert_array_equal(found, [[4, -1, 2], [0.5, -3, -6]])


@pytest.mark.parametrize("variant", ["paper", "mergekit"])
def test_weights_vote_and_weigh_the_mean(variant: str) -> None:
    # 3 · one + other: 9.5 -5 7 / 3 -6 -1.5; agreeing pairs divided by 4: -5/4, 7/4, 3/4.
    found = merged(METHOD, PAIR, [3, 1], density=1, variant=variant)
    np.testing.assert_array_equal(found, [[4, -1.25, 1.75], [0.75, -3, -6]])


def test_in_peft_weights_do_not_vote_and_the_mean_divides_by_how_many_agree() -> None:
    # Signs as without weights; 3 · 4 / 1, (-3 - 2) / 2, (6 + 1) / 2, (1.5 + 1.5) / 2, 3 / 1, -6 / 1.
    found = merged(METHOD, PAIR, [3, 1], density=1, variant="peft")
    np.testing.assert_array_equal(found, [[12, -2.5, 3.5], [1.5, 3, -6]])


def test_at_weights_a_half_peft_gives_half_of_mergekit() -> None:
    half = merged(METHOD, PAIR, [0.5, 0.5], density=1, variant="peft")
    np.testing.assert_array_equal(2 * half, merged(METHOD, PAIR, [0.5, 0.5], density=1, variant="mergekit"))


def test_a_sum_is_not_divided() -> None:
    # 3 · 4, -3 - 2, 6 + 1, 1.5 + 1.5, 3 · -3, -6
    found = merged(METHOD, PAIR, [3, 1], density=1, variant="mergekit", merge="sum")
    np.testing.assert_array_equal(found, [[12, -5, 7], [3, -9, -6]])


def test_the_max_is_the_largest_of_those_that_agree() -> None:
    found = merged(METHOD, PAIR, density=1, merge="max")
    np.testing.assert_array_equal(found, [[4, -2, 2], [1.5, 3, -6]])


@pytest.mark.parametrize("variant", ["peft", "mergekit"])
def test_frequency_counts_signs_whatever_their_size(variant: str) -> None:
    # One of each sign at three places: + is elected, and there the one's 4, the other's 3, the one's 1.5.
    found = merged(METHOD, PAIR, density=1, sign="frequency", variant=variant)
    np.testing.assert_array_equal(found, [[4, -1.5, 1.5], [1, 3, 1.5]])


def test_a_majority_by_frequency_beats_a_larger_total() -> None:
    three = [matrix([1]), matrix([2]), matrix([-9])]
    assert merged(METHOD, three, density=1, sign="frequency") == 1.5
    assert merged(METHOD, three, density=1, sign="total") == -9


def test_lambda_scales_the_result() -> None:
    found = merged(METHOD, PAIR, density=1, lambda_=0.5)
    np.testing.assert_array_equal(found, np.array(AT_DENSITY_1) / 2)


def test_where_the_paper_finds_a_sum_of_0_the_sign_elected_most_in_the_scope_decides() -> None:
    # Turned round, three places elect - and two +, so - is taken where the two cancel.
    found = merged(METHOD, [-ONE, -OTHER], density=1)
    np.testing.assert_array_equal(found, -np.array(AT_DENSITY_1))


@pytest.mark.parametrize("variant", ["peft", "mergekit"])
def test_where_peft_and_mergekit_find_a_sum_of_0_plus_is_elected(variant: str) -> None:
    found = merged(METHOD, [-ONE, -OTHER], density=1, variant=variant)
    np.testing.assert_array_equal(found, [[-4, 1.5, -1.5], [-1, 3, 6]])


def test_the_majority_is_that_of_all_tensors_and_plus_where_there_is_none() -> None:
    cancelling, negative = [matrix([1]), matrix([-1])], [matrix([-2]), matrix([-3])]
    assert [float(each[0, 0]) for each in merged_all(METHOD, [cancelling, negative], density=1)] == [-1, -2.5]
    assert merged_all(METHOD, [cancelling], density=1)[0] == 1


def test_a_tensor_that_one_adapter_alone_has_votes_in_the_majority() -> None:
    cancelling, alone = [matrix([1]), matrix([-1])], [matrix([-2]), None]
    found = merged_all(METHOD, [cancelling, alone], density=1)
    assert [float(each[0, 0]) for each in found] == [-1, -2]


def test_the_scope_decides_over_what_the_share_is_taken() -> None:
    tensors = [[matrix([10, 5])], [matrix([2, 3])]]
    whole = merged_all(METHOD, tensors, density=0.5, scope="global")
    each = [merged(METHOD, tensor, density=0.5, scope="tensor") for tensor in tensors]
    np.testing.assert_array_equal(np.concatenate(whole), [[10, 5], [0, 0]])
    np.testing.assert_array_equal(np.concatenate(each), [[10, 0], [0, 3]])


def test_an_adapter_that_lacks_a_tensor_takes_its_share_of_those_it_has_and_stays_out_of_the_mean() -> None:
    # The first keeps two of four: 10 and 5. The second keeps one of two in the second tensor alone: 8.
    tensors: list[list[Any]] = [[matrix([10, 2]), None], [matrix([5, 3]), matrix([8, 1])]]
    found = merged_all(METHOD, tensors, [1, 3], density=0.5)
    np.testing.assert_array_equal(np.concatenate(found), [[10, 0], [(5 + 3 * 8) / 4, 0]])


def test_density_0_keeps_nothing_and_a_small_one_at_least_one_element() -> None:
    assert not merged(METHOD, PAIR, density=0).any()
    np.testing.assert_array_equal(merged(METHOD, [ONE], density=0.01), [[4, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_elements_that_tie_at_the_edge_are_all_kept(variant: str) -> None:
    found = merged(METHOD, [matrix([3, -2, 2, 1])], density=0.5, variant=variant)
    np.testing.assert_array_equal(found, [[3, -2, 2, 0]])


@pytest.mark.parametrize("variant", ["paper", "mergekit"])
def test_an_adapter_of_weight_0_takes_no_part(variant: str) -> None:
    for sign in ("total", "frequency"):
        found = merged(METHOD, [ONE, OTHER, OTHER], [1, 0, 0], density=1, variant=variant, sign=sign)
        np.testing.assert_array_equal(found, ONE)
    assert not merged(METHOD, PAIR, [0, 0], density=1, variant=variant).any()


@pytest.mark.parametrize("variant", ["paper", "mergekit"])
def test_a_mean_with_negative_weights_is_refused(variant: str) -> None:
    with pytest.raises(UsageRefusal, match="one is negative"):
        merged(METHOD, PAIR, [1, -0.5], variant=variant)


def test_where_nothing_is_divided_by_weights_a_negative_one_takes_the_adapter_as_its_opposite() -> None:
    for sign in ("total", "frequency"):
        options = {"density": 1, "variant": "mergekit", "merge": "sum", "sign": sign}
        opposite = merged(METHOD, [ONE, -OTHER], [1, 2], **options)
        np.testing.assert_array_equal(merged(METHOD, PAIR, [1, -2], **options), opposite)


def test_in_peft_negated_weights_negate_the_result() -> None:
    options = {"density": 0.5, "variant": "peft"}
    found = merged(METHOD, PAIR, [-3, -1], **options)
    np.testing.assert_array_equal(found, -merged(METHOD, PAIR, [3, 1], **options))


@settings(max_examples=30)
@given(SEEDS, st.floats(0.05, 1), st.sampled_from(VARIANTS))
def test_one_adapter_is_only_trimmed(seed: int, density: float, variant: str) -> None:
    (x,) = random_inputs(seed, 1)
    kept = max(int(density * x.size), 1)
    threshold = np.sort(np.abs(x), axis=None)[-kept]
    found = merged(METHOD, [x], density=density, variant=variant)
    np.testing.assert_array_equal(found, np.where(np.abs(x) >= threshold, x, 0))
