import numpy as np
import pytest

from pamctl.adapters import LoraFactors
from pamctl.adapters.factors import Float32, Part
from pamctl.merging.relation import (
    ReadRows,
    Relation,
    conflicts_in_deltas,
    conflicts_in_factors,
    cross_term,
    probed_cross_term,
)
from tests.adapter_cases import delta, random_factors


def reading(factors: list[LoraFactors]) -> ReadRows:
    def read(place: int, part: Part, rows: slice) -> Float32:
        folded = factors[place].folded()
        return (folded.a if part == "a" else folded.b)[rows]

    return read


def test_worked_by_hand() -> None:
    """b1 a1 = 1, b2 a2 = 9, their mean 5; mean b = mean a = 2, so that mean b · mean a is 4: 1 is lost."""
    one, three = (LoraFactors(*(np.full((1, 1), value, np.float32),) * 2) for value in (1, 3))
    assert cross_term([one, three], [0.5, 0.5]) == (1, 25)


def test_little_drift_is_not_lost_in_rounding() -> None:
    start = random_factors(0, 200, 100, 8)
    away = random_factors(1, 200, 100, 8)
    near = LoraFactors(start.a + np.float32(1e-3) * away.a, start.b + np.float32(1e-3) * away.b)
    wide = [LoraFactors(each.a.astype(np.float64), each.b.astype(np.float64)) for each in (start, near)]  # type: ignore[arg-type]
    expected = (wide[1].b - wide[0].b) @ (wide[1].a - wide[0].a) / 4
    cross, _ = cross_term([start, near], [0.5, 0.5])
    assert cross == pytest.approx(float(np.sum(expected**2)), rel=1e-3)


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
def test_probes_estimate_what_is_computed(shares: list[float]) -> None:
    factors = [random_factors(seed, 300, 200, 16, scale) for seed, scale in enumerate((1.0, 0.5, 2.0))]
    exact = cross_term([each.folded() for each in factors], shares)
    found = probed_cross_term(reading(factors), factors[0].shape, [16] * 3, shares)
    for one, two in zip(exact, found, strict=True):
        assert two == pytest.approx(one, rel=0.35, abs=1e-3)


def test_of_equal_factors_nothing_is_lost() -> None:
    factors = random_factors(0, 20, 10)
    cross, mean = cross_term([factors] * 3, [0.2, 0.3, 0.5])
    assert cross == 0
    assert mean == pytest.approx(float(np.sum(delta(factors) ** 2)), rel=1e-4)
    assert Relation(cross, mean).cross_term_error == 0


def test_errors_add_up_and_are_relative() -> None:
    total = sum([Relation(1.0, 16.0), Relation(3.0, 9.0)], Relation())
    assert total.cross_term_error == pytest.approx(0.4)
    assert Relation(1.0, 0.0).cross_term_error == np.inf
    assert Relation(np.nan, 1.0).cross_term_error is None
    assert Relation().conflict_percent is None
    assert Relation(weights=8, conflicts=2).conflict_percent == 25


def test_conflicts_of_factors_are_counted_by_hand() -> None:
    """a: + against + and + against -; b: 0 has no sign, - against - agrees; the scale turns b's signs."""
    one = LoraFactors(np.float32([[1, 2]]), np.float32([[0], [-1]]))
    two = LoraFactors(np.float32([[3, -4]]), np.float32([[5], [-6]]))
    assert conflicts_in_factors([one, two]) == (4, 1)
    turned = LoraFactors(two.a, two.b, -1.0).folded()
    assert conflicts_in_factors([one, turned]) == (4, 2)


def test_conflicts_of_deltas_are_those_of_a_part_that_the_name_decides() -> None:
    factors = [random_factors(seed, 200, 150) for seed in (0, 1)]
    size, found = conflicts_in_deltas(reading(factors), "layer", factors[0].shape, 2)
    assert size == 64 * 64
    signs = [np.sign(delta(each)) for each in factors]
    share = float(np.mean(signs[0] * signs[1] < 0))
    assert found / size == pytest.approx(share, abs=0.1)
    again = conflicts_in_deltas(reading(factors[::-1]), "layer", factors[0].shape, 2)
    assert again == (size, found)
    same = conflicts_in_deltas(reading([factors[0]] * 2), "layer", factors[0].shape, 2)
    assert same == (size, 0)
