import numpy as np
import pytest

from pamctl.adapters import LoraFactors
from pamctl.inspection.spectrum import directions, energies, entropy, gram, inner, rank_that_keeps
from tests.adapter_cases import delta, random_factors


def test_directions_are_the_singular_vectors_of_the_dense_delta() -> None:
    factors = random_factors(0, 20, 12, rank=5, scale=0.3)
    found = directions(*gram(factors))
    left, right = np.float64(0.3) * factors.b @ found.left, factors.a.T @ found.right
    for basis in (left, right):
        np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(left * np.sqrt(found.energies) @ right.T, delta(factors), atol=1e-6)


def test_energies_are_squared_singular_values_also_beyond_the_size_of_the_layer() -> None:
    factors = random_factors(0, 3, 12, rank=5)
    dense = np.linalg.svd(delta(factors), compute_uv=False)
    found = energies(*gram(factors))
    np.testing.assert_allclose(found[:3], dense**2)
    assert found[3:] == pytest.approx(0, abs=1e-10 * found[0])
    assert directions(*gram(factors)).energies.size == 3


def test_inner_is_the_product_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (np.random.default_rng(seed).standard_normal((50, width)) for seed, width in ((0, 3), (1, 4)))
    monkeypatch.setattr("pamctl.inspection.spectrum._BLOCK", 28)
    np.testing.assert_allclose(inner(x, y), x.T @ y)
    np.testing.assert_allclose(inner(x, x), x.T @ x)


def test_entropy_of_hand_made_spectra() -> None:
    assert entropy(np.array([2.0, 2.0, 0.0])) == pytest.approx(np.log(2))
    assert entropy(np.array([5.0])) == 0
    assert entropy(np.zeros(3)) is None


def test_rank_that_keeps_a_share_of_hand_made_spectra() -> None:
    one, two = np.array([8.0, 1.0, 1.0]), np.array([90.0])
    assert [rank_that_keeps(share, [one]) for share in (0.8, 0.9, 0.95)] == [1, 2, 3]
    assert [rank_that_keeps(share, [one, two]) for share in (0.98, 0.985)] == [1, 2]
    assert rank_that_keeps(0.9, [np.zeros(2)]) == 0
    assert rank_that_keeps(0.9, []) == 0


def test_factors_of_very_different_size_keep_their_directions() -> None:
    a = np.diag(np.array([1e3, 1.0, 1e-2], np.float32))
    found = directions(*gram(LoraFactors(a, np.eye(3, dtype=np.float32))))
    np.testing.assert_allclose(np.sqrt(found.energies), [1e3, 1.0, 1e-2], rtol=1e-5)
