"""The arithmetic of the page's drawings: axes, labels that do not cover one another, looks that differ."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pamctl.evaluation.page.charts.extremes import extremes
from pamctl.evaluation.page.charts.look import COLOURS, DASHES, MARKS, dashes, mark
from pamctl.evaluation.page.charts.nearby import Box, Mark, placed_names
from pamctl.evaluation.page.charts.plot import Frame, spread_out
from pamctl.evaluation.page.charts.scale import Scale, bounds, shown, ticks
from pamctl.evaluation.page.charts.text import fitted, width_of


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-3.5, 3.5, 4, [-2, 0, 2]),
        (0.11, 0.19, 4, [0.12, 0.14, 0.16, 0.18]),
        (0, 600, 4, [0, 200, 400, 600]),
        (5, 5, 4, [5]),
    ],
)
def test_ticks_are_round_numbers_within(low: float, high: float, count: int, expected: list[float]) -> None:
    assert ticks(low, high, count) == expected


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6).filter(lambda size: size > 1e-3), st.integers(1, 12))
def test_ticks_are_few_and_within(low: float, size: float, count: int) -> None:
    found = ticks(low, low + size, count)
    assert len(found) <= count + 1
    assert all(low - 1e-6 * size <= tick <= low + size * (1 + 1e-6) for tick in found)


def test_a_scale_maps_its_ends_and_the_middle_where_all_is_the_same() -> None:
    up = Scale(0, 10, 200, 0)
    assert (up(0), up(10), up(2.5)) == (200, 0, 150)
    assert Scale(3, 3, 10, 20)(3) == 15


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 100], (-5, 105)), ([], (0, 1)), ([0, 0], (-0.5, 0.5)), ([40], (38, 42))]
)
def test_bounds_leave_room(values: list[float], expected: tuple[float, float]) -> None:
    assert bounds(values) == pytest.approx(expected)


def test_axes_have_a_minus_and_no_negative_zero() -> None:
    assert [shown(value) for value in (-2.5, -0.0, 40.0)] == ["−2.5", "0", "40"]


def test_crowded_labels_move_apart_and_lone_ones_stay() -> None:
    assert spread_out([50], 10, 0, 100) == [50]
    assert spread_out([20, 50, 80], 10, 0, 100) == [20, 50, 80]
    assert spread_out([50, 50], 10, 0, 100) == [45, 55]
    assert spread_out([0, 1], 10, 0, 100) == [0, 10]
    assert spread_out([99, 100], 10, 0, 100) == [90, 100]
    assert spread_out([40, 50, 50, 52], 10, 0, 100) == [33, 43, 53, 63]


@given(st.lists(st.floats(-50, 400), max_size=25).map(sorted))
def test_labels_keep_order_distance_and_bounds(places: list[float]) -> None:
    found = spread_out(places, 13, 0, 400)
    assert len(found) == len(places)
    assert all(-1e-6 <= place <= 400 + 1e-6 for place in found)
    assert all(after - before >= 13 - 1e-6 for before, after in itertools.pairwise(found))


def test_more_labels_than_fit_share_what_there_is() -> None:
    assert spread_out([5] * 5, 13, 0, 20) == [0, 5, 10, 15, 20]


def test_text_is_cut_to_its_room() -> None:
    assert fitted("pam", 100) == "pam"
    cut = fitted("a method with a name of many words", 80)
    assert cut.endswith("…")
    assert width_of(cut) <= 80 < width_of(cut.replace("…", "m…"))
    assert len(fitted("m" * 1_000_000, 80)) == 8  # letter by letter from the end took hours
    assert width_of("評価") > width_of("ab")


def test_names_of_marks_in_a_heap_cover_nothing() -> None:
    marks = [Mark(150 + number % 3 * 4, 150 + number, f"method-{number}") for number in range(12)]
    names = placed_names(marks, Frame(580, 380))
    boxes = [name.box for name in names]
    assert [name.mark for name in names] == marks
    for one, other in itertools.combinations(boxes, 2):
        assert not one.meets(other)
    for box, at in itertools.product(boxes, marks):
        assert not box.meets(Box(at.x - 4, at.y - 4, at.x + 4, at.y + 4))
    assert all(box.within(Box(0, 0, 580, 380)) for box in boxes)
    assert any(name.far for name in names)


def test_a_lone_name_stands_right_of_its_mark() -> None:
    [name] = placed_names([Mark(100, 100, "pam")], Frame(580, 380))
    assert (name.box.left, name.far) == (108, False)
    [name] = placed_names([Mark(560, 100, "pam")], Frame(580, 380))
    assert name.box.right == 552


def test_series_differ_without_colour() -> None:
    looks = {(mark(0, 0, index), dashes(index)) for index in range(COLOURS * DASHES)}
    assert len(looks) == COLOURS * DASHES == 24
    assert len(set(MARKS)) == COLOURS


@pytest.mark.parametrize(
    ("numbers", "least", "most"),
    [
        ({"a": 1.0, "b": 3.04, "c": 1.04}, ("a, c", "1.0"), ("b", "3.0")),
        ({"a": -0.04, "b": 0.04}, ("a, b", "0.0"), ("a, b", "0.0")),
        ({"a": 2.0}, ("a", "2.0"), ("a", "2.0")),
    ],
)
def test_extremes_are_told_to_a_tenth(
    numbers: dict[str, float], least: tuple[str, str], most: tuple[str, str]
) -> None:
    assert extremes(numbers) == (least, most)
