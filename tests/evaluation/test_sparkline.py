"""A row of numbers as characters."""

from pamctl.evaluation.sparkline import sparkline


def test_the_least_and_the_most_are_the_ends() -> None:
    assert sparkline([0.0, 50.0, 100.0], 0, 100) == "▁▅█"
    assert sparkline([0.0, 50.0, 100.0], 0, 100, plain=True) == "_+@"


def test_what_lies_outside_is_drawn_at_the_end_and_none_as_a_gap() -> None:
    assert sparkline([-5.0, None, 200.0], 0, 100) == "▁ █"


def test_without_a_range_all_is_low() -> None:
    assert sparkline([3.0, 3.0], 3, 3) == "▁▁"
    assert sparkline([], 0, 1) == ""
