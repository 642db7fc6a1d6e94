import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.iso_c import METHOD
from tests.merging.methods.spectral_cases import dense, factors_of, merged, random_factors


@pytest.mark.parametrize(("ranks", "outputs"), [((2, 3), 12), ((2, 2, 2), 12), ((4, 4), 5)])
def test_it_is_the_published_formula_over_the_directions_of_the_sum(
    ranks: tuple[int, ...], outputs: int
) -> None:
    factors = random_factors(0, ranks, outputs)
    left, singular, right = np.linalg.svd(sum(dense(factors)), full_matrices=False)
    k = min(sum(ranks), outputs)
    expected = 1.4 * singular[:k].mean() * left[:, :k] @ right[:k]
    np.testing.assert_allclose(merged(METHOD, factors, alpha=1.4), expected, atol=1e-10)


def test_the_spectrum_becomes_its_mean() -> None:
    factors = factors_of([[3, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]])  # mean of 3 and 1
    np.testing.assert_allclose(merged(METHOD, factors), [[2, 0, 0], [0, 2, 0]], atol=1e-12)
    np.testing.assert_allclose(merged(METHOD, factors, alpha=1.5), [[3, 0, 0], [0, 3, 0]], atol=1e-12)


def test_directions_that_the_sum_has_not_are_neither_counted_nor_filled() -> None:
    factors = factors_of([[4, 0, 0], [0, 0, 0]], [[-1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(merged(METHOD, factors), [[3, 0, 0], [0, 0, 0]], atol=1e-12)


def test_all_energy_is_in_the_span_of_the_adapters() -> None:
    factors = random_factors(1, (2, 2))
    span = np.linalg.qr(np.hstack([b for b, _ in factors]))[0]
    result = merged(METHOD, factors)
    np.testing.assert_allclose(span @ (span.T @ result), result, atol=1e-12)


def test_copies_are_the_flat_adapter_times_their_number() -> None:
    factors = random_factors(2, (3,))
    np.testing.assert_allclose(merged(METHOD, factors * 3), 3 * merged(METHOD, factors), atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(2, 12))
def test_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int) -> None:
    factors = random_factors(seed, ranks, outputs)
    np.testing.assert_allclose(merged(METHOD, factors), merged(METHOD, factors, turn=seed), atol=1e-7)


def test_a_weight_scales_its_delta() -> None:
    first, second = random_factors(3, (2, 2))
    np.testing.assert_allclose(
        merged(METHOD, [first, second], [0.5, -1]),
        merged(METHOD, [(0.5 * first[0], first[1]), (-second[0], second[1])]),
        atol=1e-10,
    )


def test_inputs_that_cancel_or_are_zero_give_zero() -> None:
    b, a = random_factors(4, (2,))[0]
    assert not merged(METHOD, [(b, a), (-b, a)]).any()
    assert not merged(METHOD, [(0 * b, a), (0 * b, a)]).any()
    np.testing.assert_allclose(merged(METHOD, factors_of([[2.0]], [[-5.0]])), [[-3.0]])
