import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.random_numbers import Draws

DRAWS = Draws(0, "f" * 64, "layer delta")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(0, 100), st.integers(1, 100))
def test_a_number_hangs_on_its_place_alone(first: int, skipped: int, count: int) -> None:
    whole = DRAWS.numbers(first, skipped + count)
    np.testing.assert_array_equal(DRAWS.numbers(first + skipped, count), whole[skipped:])


def test_far_places_are_reached_at_once() -> None:
    near, far = DRAWS.numbers(0, 8), DRAWS.numbers(2**40, 8)
    assert not np.array_equal(near, far)
    np.testing.assert_array_equal(far[3:], DRAWS.numbers(2**40 + 3, 5))


def test_seed_adapter_and_tensor_each_give_other_numbers() -> None:
    others = [Draws(1, "f" * 64, "layer delta"), Draws(0, "e" * 64, "layer delta"), Draws(0, "f" * 64, "b")]
    first = DRAWS.numbers(0, 16)
    assert all(not np.array_equal(first, other.numbers(0, 16)) for other in others)


def test_they_are_uniform_float32_below_one() -> None:
    numbers = DRAWS.numbers(0, 100_000)
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)


def test_they_are_these() -> None:
    """Recorded once: another release must not draw others."""
    assert [round(float(number), 6) for number in DRAWS.numbers(0, 4)] == [
        0.05128,
        0.691539,
        0.613159,
        0.780599,
    ]
