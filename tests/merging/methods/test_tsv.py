import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.tsv import METHOD
from tests.merging.methods.spectral_cases import Float64, dense, factors_of, merged, random_factors


def published(deltas: list[Float64], k: int, alpha: float = 1.0) -> Float64:
    """The paper's formula on dense deltas: concatenated triples, Procrustes of U and of V."""
    triples = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
    p_u, _, q_u = np.linalg.svd(np.hstack([u[:, :k] for u, _, _ in triples]), full_matrices=False)
    p_v, _, q_v = np.linalg.svd(np.vstack([v[:k] for _, _, v in triples]), full_matrices=False)
    return alpha * (p_u @ q_u) @ np.diag(np.concatenate([s[:k] for _, s, _ in triples])) @ (p_v @ q_v)


@pytest.mark.parametrize(("ranks", "k"), [((2, 2), 2), ((3, 3, 3), 3), ((1, 1, 1, 1), 1), ((4, 4), 4)])
def test_it_is_the_published_formula_on_the_dense_deltas(ranks: tuple[int, ...], k: int) -> None:
    factors = random_factors(0, ranks)
    np.testing.assert_allclose(
        merged(METHOD, factors, alpha=0.7), published(dense(factors), k, 0.7), atol=1e-10
    )


def test_k_keeps_that_many_directions_of_each_input() -> None:
    factors = random_factors(1, (4, 4))
    np.testing.assert_allclose(merged(METHOD, factors, k=2), published(dense(factors), 2), atol=1e-10)


def test_inputs_of_unequal_ranks_keep_an_equal_share_of_all_directions() -> None:
    # ranks 4 and 2 are 6 directions, 3 each: three of the four of the first and both of the second
    factors = random_factors(2, (4, 2))
    first, second = (np.linalg.svd(delta, full_matrices=False) for delta in dense(factors))
    left, right = np.hstack([first[0][:, :3], second[0][:, :2]]), np.vstack([first[2][:3], second[2][:2]])
    (p_u, _, q_u), (p_v, _, q_v) = (np.linalg.svd(each, full_matrices=False) for each in (left, right))
    strengths = np.diag(np.concatenate([first[1][:3], second[1][:2]]))
    np.testing.assert_allclose(merged(METHOD, factors), p_u @ q_u @ strengths @ p_v @ q_v, atol=1e-10)


def test_a_module_smaller_than_the_sum_of_ranks_is_what_the_share_is_of() -> None:
    factors = random_factors(3, (4, 4), outputs=5, inputs=9)  # floor(5 / 2) = 2
    np.testing.assert_allclose(merged(METHOD, factors), published(dense(factors), 2), atol=1e-10)


def test_orthogonal_inputs_add_up() -> None:
    factors = factors_of([[3, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 0]])
    np.testing.assert_allclose(merged(METHOD, factors), [[3, 0, 0], [0, 2, 0]], atol=1e-12)
    np.testing.assert_allclose(merged(METHOD, factors, alpha=0.5), [[1.5, 0, 0], [0, 1, 0]], atol=1e-12)


def test_overlapping_left_directions_are_orthogonalised() -> None:
    # u1 = (1, 0), u2 = (.6, .8), v1 = v2 = e1, strengths 1. polar(V) has e1 / √2 twice. U'U, which is
    # [[1, .6], [.6, 1]], has the eigenvector (1, 1) / √2 with 1.6, so polar(U) makes of it
    # U (1, 1) / √2 / √1.6 = (1.6, .8) / √3.2 = (2, 1) / √5.
    factors = factors_of([[1, 0, 0], [0, 0, 0]], [[0.6, 0, 0], [0.8, 0, 0]])
    root = np.sqrt(5)
    np.testing.assert_allclose(merged(METHOD, factors), [[2 / root, 0, 0], [1 / root, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_of_an_adapter_merge_to_it(copies: int) -> None:
    factors = random_factors(4, (3,)) * copies
    np.testing.assert_allclose(merged(METHOD, factors), dense(factors)[0], atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(2, 12))
def test_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int) -> None:
    factors = random_factors(seed, ranks, outputs)
    np.testing.assert_allclose(merged(METHOD, factors), merged(METHOD, factors, turn=seed), atol=1e-7)


def test_a_weight_scales_its_delta_and_weight_0_leaves_it_out() -> None:
    first, second, third = random_factors(5, (2, 2, 2))
    scaled = [(2 * first[0], first[1]), second]
    np.testing.assert_allclose(
        merged(METHOD, [first, second, third], [2, 1, 0]), merged(METHOD, scaled), atol=1e-10
    )


def test_scaling_all_deltas_scales_the_result() -> None:
    factors = random_factors(6, (2, 3))
    np.testing.assert_allclose(merged(METHOD, factors, [-3, -3]), -3 * merged(METHOD, factors), atol=1e-10)


def test_deltas_of_zero_and_single_numbers_merge() -> None:
    zero, some = (np.zeros((4, 2)), np.ones((2, 3))), random_factors(7, (2,), 4, 3)[0]
    assert not merged(METHOD, [zero, zero]).any()
    np.testing.assert_allclose(merged(METHOD, [zero, some]), some[0] @ some[1], atol=1e-12)
    # one direction for two inputs: each keeps it, and the shared direction has the mean strength (2 + 4) / 2
    np.testing.assert_allclose(merged(METHOD, factors_of([[2.0]], [[4.0]])), [[3.0]])
