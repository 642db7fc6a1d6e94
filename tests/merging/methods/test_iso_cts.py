import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import iso_c
from pamctl.merging.methods.iso_cts import METHOD, directions_of_each
from tests.merging.methods.spectral_cases import Float64, dense, factors_of, merged, random_factors


def published(deltas: list[Float64], available: int, fraction: float, alpha: float) -> Float64:
    """The paper's formula on dense deltas that have `available` directions together."""
    each = round((available - int(available * fraction)) / len(deltas))
    common = available - each * len(deltas)
    u, s, v = np.linalg.svd(np.sum(deltas, axis=0), full_matrices=False)
    triples = []
    for delta in deltas:
        rest = delta - u[:, :common] @ u[:, :common].T @ delta
        u_i, s_i, v_i = np.linalg.svd(rest, full_matrices=False)
        triples.append((u_i[:, :each], s_i[:each], v_i[:each]))
    triples.append((u[:, :common], s[:common], v[:common]))
    p_u, _, q_u = np.linalg.svd(np.hstack([each[0] for each in triples]), full_matrices=False)
    p_v, _, q_v = np.linalg.svd(np.vstack([each[2] for each in triples]), full_matrices=False)
    return alpha * np.concatenate([each[1] for each in triples]).mean() * (p_u @ q_u) @ (p_v @ q_v)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("ranks", "outputs"), [((4, 4), 12), ((2, 3, 3), 12), ((5, 5), 7)])
def test_it_is_the_published_formula_on_the_dense_deltas(
    ranks: tuple[int, ...], outputs: int, fraction: float
) -> None:
    factors = random_factors(0, ranks, outputs)
    expected = published(dense(factors), min(outputs, 9, sum(ranks)), fraction, 1.2)
    result = merged(METHOD, factors, common_space_fraction=fraction, alpha=1.2)
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_common_and_own_directions_become_equally_strong() -> None:
    # R = 4, half common: e1, e2 of the sum, strengths 4 and 3. One own direction each: the first has nothing
    # left, of the second diag(2, 1) is left and its 2 kept. The mean of 4, 3 and 2 is 3.
    factors = factors_of(np.diag([4, 3, 0, 0]), np.diag([0, 0, 2, 1]))
    np.testing.assert_allclose(
        merged(METHOD, factors, common_space_fraction=0.5), np.diag([3, 3, 3, 0]), atol=1e-12
    )


@pytest.mark.parametrize(
    ("available", "inputs", "fraction", "expected"),
    [
        (10, 2, 0.8, (8, 1)),
        (12, 2, 0.8, (8, 2)),
        (4, 2, 0.8, (4, 0)),
        (3, 2, 0.0, (1, 1)),
        (9, 3, 1.0, (9, 0)),
    ],
)
def test_own_directions_are_shared_out_equally(
    available: int, inputs: int, fraction: float, expected: tuple[int, int]
) -> None:
    assert directions_of_each(available, inputs, fraction) == expected


def test_with_everything_common_it_is_iso_c() -> None:
    factors = random_factors(1, (2, 3))
    np.testing.assert_allclose(
        merged(METHOD, factors, common_space_fraction=1.0), merged(iso_c.METHOD, factors), atol=1e-10
    )


def test_all_energy_is_in_the_span_of_the_adapters() -> None:
    factors = random_factors(2, (3, 3))
    span = np.linalg.qr(np.vstack([a for _, a in factors]).T)[0]
    result = merged(METHOD, factors, common_space_fraction=0.3)
    np.testing.assert_allclose(result @ span @ span.T, result, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 500),
    st.lists(st.integers(2, 4), min_size=1, max_size=3),
    st.integers(6, 12),
    st.sampled_from([0.0, 0.5, 0.8]),
)
def test_the_basis_does_not_matter(seed: int, ranks: list[int], outputs: int, fraction: float) -> None:
    factors = random_factors(seed, ranks, outputs)
    one, two = (merged(METHOD, factors, turn=t, common_space_fraction=fraction) for t in (None, seed))
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 1.0])
def test_degenerate_inputs_merge(fraction: float) -> None:
    b, a = random_factors(3, (4,))[0]
    flat = merged(iso_c.METHOD, [(b, a)])
    copies = merged(METHOD, [(b, a), (b, a)], common_space_fraction=fraction)
    left, singular, right = np.linalg.svd(copies)
    assert np.ptp(singular[:4]) < 1e-9
    assert (singular[4:] < 1e-9).all()
    np.testing.assert_allclose(left[:, :4] @ right[:4] * np.linalg.norm(flat, 2), flat, atol=1e-9)
    assert not merged(METHOD, [(0 * b, a)], common_space_fraction=fraction).any()
    np.testing.assert_allclose(
        merged(METHOD, factors_of([[2.0]]), common_space_fraction=fraction), [[2.0]], atol=1e-12
    )


def test_inputs_that_cancel_keep_only_what_is_their_own() -> None:
    b, a = random_factors(4, (2,))[0]
    result = merged(METHOD, [(b, a), (-b, a)], common_space_fraction=0.5)
    assert np.abs(result).max() < 1e-9 * np.abs(b @ a).max()
