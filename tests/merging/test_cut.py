import numpy as np
import pytest

from pamctl.merging.cut import Cut, is_large

ENERGIES = np.array([50.0, 30.0, 15.0, 5.0])


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (Cut(), 4),
        (Cut(2), 2),
        (Cut(9), 4),
        (Cut(energy=0.5), 1),
        (Cut(energy=0.51), 2),
        (Cut(energy=0.8), 2),
        (Cut(energy=1.0), 4),
        (Cut(3, 0.99), 3),
        (Cut(3, 0.5), 1),
    ],
)
def test_the_smallest_rank_that_is_asked_for(cut: Cut, kept: int) -> None:
    assert cut.kept(ENERGIES, 100.0) == kept


def test_of_nothing_one_direction_stays() -> None:
    assert Cut(energy=0.9).kept(np.zeros(3), 0.0) == 1


def test_sums_of_very_large_rank_are_cut_by_the_range_finder_unless_in_full() -> None:
    assert is_large(2048, Cut(32))
    assert not is_large(2048, Cut(32, svd="full"))
    assert not is_large(2048, Cut())
    assert not is_large(128, Cut(32))
