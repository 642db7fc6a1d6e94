import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods.opcm import METHOD
from tests.merging.methods.spectral_cases import Float64, dense, factors_of, merged, random_factors

MERGED = [[3, 0, 0], [0, 1, 0]]
NEXT = [[5, 2, 1], [4, 7, 0]]
NORMS = np.sqrt(10), np.sqrt(95)  # 9 + 1 and 25 + 4 + 1 + 16 + 49


def published(deltas: list[Float64], alpha: float) -> Float64:
    """The released recursion with its lambda at each step, norms and ranks those of the module."""
    merged, previous, norms = deltas[0], 1.0, [np.linalg.norm(deltas[0])]
    for delta in deltas[1:]:
        norms.append(np.linalg.norm(delta))
        u, s, vt = np.linalg.svd(merged)
        rank = np.linalg.matrix_rank(merged)
        over = s.cumsum() / s.sum() > alpha
        split = int(over.argmax())
        projected = u.T @ delta @ vt.T
        projected[np.arange(rank), np.arange(rank)] = 0
        projected[:split, :split] = 0
        merged = previous * merged + u @ projected @ vt
        previous = np.linalg.norm(merged) / np.mean(norms)
        merged = merged / previous
    return merged


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("ranks", "outputs"), [((2, 3), 12), ((2, 1, 3, 2), 12), ((3, 4, 3), 6)])
def test_it_is_the_released_recursion_on_the_dense_deltas(
    ranks: tuple[int, ...], outputs: int, alpha: float
) -> None:
    factors = random_factors(0, ranks, outputs)
    np.testing.assert_allclose(
        merged(METHOD, factors, alpha=alpha), published(dense(factors), alpha), atol=1e-9
    )


@pytest.mark.parametrize(
    ("alpha", "total"),
    [
        # the singular values 3 and 1 sum up to 0.75 and 1 of all
        (0.5, [[3, 2, 1], [4, 1, 0]]),  # none protected: only the diagonal 5, 7 is dropped
        (0.8, [[3, 2, 1], [4, 1, 0]]),  # the first: its block is the 5
        (1.0, [[3, 0, 1], [0, 1, 0]]),  # both: the block [[5, 2], [4, 7]]
    ],
)
def test_what_acts_along_directions_already_taken_is_dropped(alpha: float, total: list[list[float]]) -> None:
    expected = np.asarray(total) * np.mean(NORMS) / np.linalg.norm(total)
    result = merged(METHOD, factors_of(MERGED, NEXT), alpha=alpha)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_the_norm_is_the_mean_norm_of_the_inputs() -> None:
    factors = random_factors(1, (2, 3, 1))
    mean = np.mean([np.linalg.norm(delta) for delta in dense(factors)])
    assert np.linalg.norm(merged(METHOD, factors)) == pytest.approx(mean)


def test_a_delta_orthogonal_to_all_before_is_added_whole() -> None:
    factors = factors_of([[3, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 4]])  # norm 5 to the mean of 3 and 4
    np.testing.assert_allclose(merged(METHOD, factors), np.array([[3, 0, 0], [0, 0, 4]]) * 0.7, atol=1e-12)


def test_the_order_matters() -> None:
    assert not METHOD.symmetric
    one, two = random_factors(2, (2, 2))
    assert np.abs(merged(METHOD, [one, two]) - merged(METHOD, [two, one])).max() > 1e-3


def test_weights_scale_the_deltas() -> None:
    one, two = random_factors(3, (2, 2))
    np.testing.assert_allclose(
        merged(METHOD, [one, two], [2, 0.5]),
        merged(METHOD, [(2 * one[0], one[1]), (0.5 * two[0], two[1])]),
        atol=1e-10,
    )


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 500),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(2, 12),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int, alpha: float) -> None:
    factors = random_factors(seed, ranks, outputs)
    one, two = (merged(METHOD, factors, turn=t, alpha=alpha) for t in (None, seed))
    np.testing.assert_allclose(one, two, atol=1e-7)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_copies_of_an_adapter_merge_to_it(copies: int) -> None:
    factors = random_factors(4, (3,)) * copies
    np.testing.assert_allclose(merged(METHOD, factors), dense(factors)[0], atol=1e-10)


def test_deltas_of_zero_and_single_numbers_merge() -> None:
    zero, some = (np.zeros((4, 2)), np.ones((2, 3))), random_factors(5, (2,), 4, 3)[0]
    assert not merged(METHOD, [zero, zero]).any()
    np.testing.assert_allclose(merged(METHOD, [zero, some]), some[0] @ some[1] / 2, atol=1e-12)
    # the second acts along the only direction and is dropped; the norm is the mean of 2 and 4
    np.testing.assert_allclose(merged(METHOD, factors_of([[2.0]], [[4.0]])), [[3.0]])
