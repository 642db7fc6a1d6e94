from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.knots import METHOD
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


def coordinates(factors: list[Factors], turn: int | None = None, **given: Any) -> Coordinates:
    assert isinstance(METHOD.work, Projected)
    return METHOD.work.project(bases_of(factors, turn), settings_of(METHOD, given))


def published(deltas: list[Float64]) -> tuple[Float64, list[Float64]]:
    """U, each column's largest entry positive, and the S V_i of the stacked dense deltas."""
    left, singular, right = np.linalg.svd(np.hstack(deltas), full_matrices=False)
    kept = singular > 1e-5
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])[kept]
    merged = np.diag(singular[kept]) @ right[kept] * signs[:, None]
    return left[:, kept] * signs, np.split(merged, len(deltas), axis=1)


def ties(tensors: list[Float64], density: float) -> Float64:
    """TIES, each tensor trimmed on its own: the mean of those that agree with the sign of the sum."""
    trimmed = []
    for tensor in tensors:
        threshold = np.sort(np.abs(tensor), axis=None)[-int(density * tensor.size)]
        trimmed.append(np.where(np.abs(tensor) >= threshold, tensor, 0))
    agree = np.sign(trimmed) == np.sign(np.sum(trimmed, axis=0))
    return np.sum(trimmed * agree, axis=0) / np.maximum(np.sum(agree & (np.array(trimmed) != 0), axis=0), 1)


@pytest.mark.parametrize(("ranks", "outputs"), [((2, 3), 12), ((2, 2, 2), 12), ((4, 4), 5)])
def test_the_coordinates_are_the_published_ones_of_the_dense_deltas(
    ranks: tuple[int, ...], outputs: int
) -> None:
    factors = random_factors(0, ranks, outputs)
    basis, expected = published(dense(factors))
    found = coordinates(factors)
    np.testing.assert_allclose(found.left, basis, atol=1e-10)
    np.testing.assert_allclose(found.tensors(), expected, atol=1e-10)
    assert found.right is None


def test_ties_on_the_coordinates_is_knots_ties_on_the_dense_deltas() -> None:
    factors = random_factors(1, (2, 3, 2))
    basis, expected = published(dense(factors))
    found = coordinates(factors)
    b, a = found.restore(ties(found.tensors(), 0.3))
    np.testing.assert_allclose(b @ a, basis @ ties(expected, 0.3), atol=1e-10)
    assert b.shape == (12, 7)
    assert a.shape == (7, 9)


def test_stacked_by_inputs_it_is_the_same_of_the_transposed_deltas() -> None:
    factors = random_factors(2, (2, 3))
    basis, expected = published([delta.T for delta in dense(factors)])
    found = coordinates(factors, stack="inputs")
    np.testing.assert_allclose(found.tensors(), [each.T for each in expected], atol=1e-10)
    b, a = found.restore(ties(found.tensors(), 0.3))
    np.testing.assert_allclose(b @ a, (basis @ ties(expected, 0.3)).T, atol=1e-10)


def test_directions_come_strongest_first_with_their_largest_entry_positive() -> None:
    found = coordinates(factors_of([[0, 0, 0], [0, 0, -5]], [[-3, 0, 1], [0, 0, 0]]))
    np.testing.assert_allclose(found.left, [[0, 1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(
        found.tensors(), [[[0, 0, -5], [0, 0, 0]], [[0, 0, 0], [-3, 0, 1]]], atol=1e-12
    )


def test_the_sign_of_a_direction_with_equal_entries_is_that_of_its_first() -> None:
    for turn in range(5):
        found = coordinates(factors_of([[-1, 0], [1, 0], [0, 0]]), turn)
        assert found.left is not None
        np.testing.assert_allclose(found.left, [[0.5**0.5], [-(0.5**0.5)], [0]], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 500),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(1, 12),
    st.sampled_from(["outputs", "inputs"]),
)
def test_nothing_is_lost_and_the_basis_does_not_matter(
    seed: int, ranks: list[int], outputs: int, stack: str
) -> None:
    factors = random_factors(seed, ranks, outputs)
    found, turned = coordinates(factors, stack=stack), coordinates(factors, seed, stack=stack)
    for delta, tensor, other in zip(dense(factors), found.tensors(), turned.tensors(), strict=True):
        b, a = found.restore(tensor)
        np.testing.assert_allclose(b @ a, delta, atol=1e-9)
        np.testing.assert_allclose(tensor, other, atol=1e-7)


@pytest.mark.parametrize("stack", ["outputs", "inputs"])
def test_copies_add_no_directions(stack: str) -> None:
    factors = random_factors(3, (3,)) * 3
    found = coordinates(factors, stack=stack)
    assert found.tensors()[0].shape == ((3, 9) if stack == "outputs" else (12, 3))
    b, a = found.restore(found.tensors()[2])
    np.testing.assert_allclose(b @ a, dense(factors)[0], atol=1e-10)


@pytest.mark.parametrize("stack", ["outputs", "inputs"])
def test_deltas_of_zero_keep_one_direction_that_is_zero(stack: str) -> None:
    found = coordinates([(np.zeros((4, 2)), np.ones((2, 3)))] * 2, stack=stack)
    tensor = found.tensors()[0]
    assert tensor.shape == ((1, 3) if stack == "outputs" else (4, 1))
    b, a = found.restore(tensor)
    assert not (b @ a).any()


def test_single_numbers_are_their_own_coordinates() -> None:
    np.testing.assert_allclose(coordinates(factors_of([[-2.0]], [[4.0]])).tensors(), [[[-2]], [[4]]])


def test_the_tensors_are_made_of_factors_as_thin_as_the_inputs() -> None:
    found = coordinates(random_factors(4, (2, 3)))
    assert [(b.shape, a.shape) for b, a in found.factors] == [((5, 2), (2, 9)), ((5, 3), (3, 9))]
