import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import knots
from pamctl.merging.methods.core import METHOD
from pamctl.merging.methods.method import Coordinates, Projected
from tests.merging.methods.spectral_cases import (
    Factors,
    Float64,
    bases_of,
    dense,
    factors_of,
    random_factors,
    settings_of,
)


def coordinates(factors: list[Factors], turn: int | None = None) -> Coordinates:
    assert isinstance(METHOD.work, Projected)
    return METHOD.work.project(bases_of(factors, turn), settings_of(METHOD, {}))


def upright(columns: Float64) -> Float64:
    return columns * np.sign(columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])])


@pytest.mark.parametrize("ranks", [(2, 2), (2, 2, 2), (1, 4), (3,)])
def test_the_coordinates_are_the_published_ones(ranks: tuple[int, ...]) -> None:
    factors = random_factors(0, ranks)
    left = upright(np.linalg.svd(np.hstack([b for b, _ in factors]), full_matrices=False)[0])
    right = upright(np.linalg.svd(np.vstack([a for _, a in factors]), full_matrices=False)[2].T)
    found = coordinates(factors)
    expected = [left.T @ b @ a @ right for b, a in factors]
    np.testing.assert_allclose(found.tensors(), expected, atol=1e-10)
    assert found.tensors()[0].shape == (sum(ranks), sum(ranks))
    merged = np.maximum.reduce(expected)
    b, a = found.restore(merged)
    np.testing.assert_allclose(b @ a, left @ merged @ right.T, atol=1e-10)


def test_the_bases_come_from_the_factors_with_largest_entries_positive() -> None:
    # columns of all B: (0, -2) and (1, 0); rows of all A: (0, 0, 3) and (-1, 0, 0). Strongest first: outputs
    # (0, 1), (1, 0) and inputs (0, 0, 1), (1, 0, 0). The deltas are -6 and -1.
    factors = [
        (np.array([[0.0], [-2.0]]), np.array([[0.0, 0.0, 3.0]])),
        (np.array([[1.0], [0.0]]), np.array([[-1.0, 0.0, 0.0]])),
    ]
    found = coordinates(factors)
    np.testing.assert_allclose(found.left, [[0, 1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(found.right, [[0, 0, 1], [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(found.tensors(), [[[-6, 0], [0, 0]], [[0, 0], [0, -1]]], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 12))
def test_nothing_is_lost_and_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int) -> None:
    factors = random_factors(seed, ranks, outputs)
    found, turned = coordinates(factors), coordinates(factors, seed)
    for delta, tensor, other in zip(dense(factors), found.tensors(), turned.tensors(), strict=True):
        b, a = found.restore(tensor)
        np.testing.assert_allclose(b @ a, delta, atol=1e-9)
        np.testing.assert_allclose(tensor, other, atol=1e-7)


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 9), (9, 3)])
def test_a_side_shorter_than_the_sum_of_ranks_makes_the_core_oblong(outputs: int, inputs: int) -> None:
    factors = random_factors(1, (2, 3), outputs, inputs)
    found = coordinates(factors)
    assert found.tensors()[0].shape == (min(outputs, 5), min(inputs, 5))
    b, a = found.restore(found.tensors()[1])
    assert b.shape[1] == 3
    np.testing.assert_allclose(b @ a, dense(factors)[1], atol=1e-10)


def test_copies_add_no_directions() -> None:
    factors = random_factors(2, (3,)) * 2
    found = coordinates(factors)
    assert found.tensors()[0].shape == (3, 3)
    b, a = found.restore(found.tensors()[1])
    np.testing.assert_allclose(b @ a, dense(factors)[0], atol=1e-10)


def test_an_adapter_whose_scale_is_all_on_one_side_is_kept() -> None:
    (b, a), other = random_factors(3, (2, 2))
    found = coordinates([(1e9 * b, 1e-9 * a), other])
    assert found.tensors()[0].shape == (4, 4)
    for delta, tensor in zip((b @ a, other[0] @ other[1]), found.tensors(), strict=True):
        left, right = found.restore(tensor)
        np.testing.assert_allclose(left @ right, delta, atol=1e-5)


def test_deltas_of_zero_keep_one_direction_that_is_zero() -> None:
    found = coordinates([(np.zeros((4, 2)), np.ones((2, 3)))] * 2)
    b, a = found.restore(found.tensors()[0])
    assert found.tensors()[0].shape == (1, 1)
    assert b.shape == (4, 1)
    assert not (b @ a).any()


def test_single_numbers_are_their_own_coordinates() -> None:
    np.testing.assert_allclose(coordinates(factors_of([[-2.0]], [[4.0]])).tensors(), [[[-2]], [[4]]])


def test_it_takes_the_same_inner_methods_as_knots() -> None:
    assert METHOD.parameters == (knots.INNER,)
