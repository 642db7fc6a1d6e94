"""Soft accuracy, by hand: ten people answered unless a row says otherwise."""

import pytest

from pamctl.evaluation.answers import metric_named
from pamctl.evaluation.answers.soft_accuracy import leave_one_out


def answers(**times: int) -> tuple[str, ...]:
    """Each answer so many times."""
    return tuple(answer for answer, count in times.items() for _ in range(count))


@pytest.mark.parametrize(
    ("matches", "given", "score"),
    [
        (0, 10, 0.0),
        (1, 10, 0.3),  # (1 * 0/3 + 9 * 1/3) / 10
        (2, 10, 0.6),  # (2 * 1/3 + 8 * 2/3) / 10
        (3, 10, 0.9),  # (3 * 2/3 + 7 * 1) / 10
        (4, 10, 1.0),  # (4 * 1 + 6 * 1) / 10
        (10, 10, 1.0),
        (1, 1, 0.0),  # nothing is left when the one is left out
        (1, 2, 1 / 6),  # (0/3 + 1/3) / 2
        (2, 2, 1 / 3),
        (3, 3, 2 / 3),
        (4, 4, 1.0),
        (2, 5, 8 / 15),  # (2 * 1/3 + 3 * 2/3) / 5
        (0, 0, 0.0),
    ],
)
def test_each_answer_is_left_out_in_turn(matches: int, given: int, score: float) -> None:
    assert leave_one_out(matches, given) == score
    assert metric_named("vqa").score("red", answers(red=matches, blue=given - matches)) == score


@pytest.mark.parametrize(
    ("prediction", "given", "score"),
    [
        # The answers differ: both sides are normalised.
        ("the Red!", answers(red=4, blue=6), 1.0),
        ("two", answers(**{"2": 1, "two": 1, "three": 8}), 0.6),
        ("2", answers(**{"none": 7, "a two": 3}), 0.9),
        ("dont", answers(**{"don't": 2, "do not": 8}), 0.6),
        ("yellow green", answers(**{"yellow-green": 1, "green": 9}), 0.3),
        # They are the same: nothing is, on either side.
        ("Yes", answers(Yes=10), 1.0),
        ("yes", answers(Yes=10), 0.0),
        ("yes.", answers(yes=10), 0.0),
        ("two", answers(**{"2": 10}), 0.0),
        ("the end", answers(**{"the end": 10}), 1.0),
        # Space is taken off before it is asked whether they are.
        (" Yes\n", answers(**{"Yes": 5, "Yes ": 3, "\tYes": 2}), 1.0),
        ("yes", answers(**{"Yes": 5, "Yes ": 5}), 0.0),
        ("stop sign", answers(**{"stop\nsign": 10}), 1.0),
        # They differ only before they are normalised.
        ("yes", answers(Yes=5, yes=5), 1.0),
        # Nothing left of an answer is an answer too.
        ("", answers(red=10), 0.0),
        ("", answers(a=4, red=6), 1.0),
        ("?", answers(the=1, red=9), 0.3),
        # Scripts and spellings.
        ("NAÏVE", answers(naïve=4, red=6), 1.0),
        ("naive", answers(naïve=4, red=6), 0.0),
        ("猫", answers(猫=3, 犬=7), 0.9),
        ("red " * 100_000, answers(red=4, blue=6), 0.0),
    ],
)
def test_vqa_normalises_only_where_the_answers_differ(
    prediction: str, given: tuple[str, ...], score: float
) -> None:
    assert metric_named("vqa").score(prediction, given) == score


@pytest.mark.parametrize(
    ("prediction", "given", "score"),
    [
        ("red", answers(red=1, blue=9), 1 / 3),
        ("red", answers(red=2, blue=8), 2 / 3),
        ("red", answers(red=3, blue=7), 1.0),
        ("red", answers(red=10), 1.0),
        ("red", answers(red=1), 1 / 3),
        ("Red", answers(red=10), 0.0),
        ("red ", answers(red=10), 0.0),
        ("", answers(red=10), 0.0),
        ("red", (), 0.0),
    ],
)
def test_vqa_simple_takes_strings_as_they_are(prediction: str, given: tuple[str, ...], score: float) -> None:
    assert metric_named("vqa-simple").score(prediction, given) == score


@pytest.mark.parametrize(
    ("prediction", "given", "score"),
    [
        ("Yes", answers(yes=1), 1 / 3),
        ("no", answers(yes=1), 0.0),
        ("yes ", answers(yes=1), 0.0),
        ("yes", answers(Yes=2, no=1), 2 / 3),
        ("yes", (), 0.0),
    ],
)
def test_vqa_single_gives_one_answer_a_third(prediction: str, given: tuple[str, ...], score: float) -> None:
    assert metric_named("vqa-single").score(prediction, given) == score


@pytest.mark.parametrize("name", ["vqa", "vqa-simple", "vqa-single", "coin-textvqa", "exact"])
def test_so_many_answers_are_needed_for_a_score_of_1(name: str) -> None:
    metric = metric_named(name)
    assert metric.score("red", answers(red=metric.answers_needed)) == 1
    assert metric.score("red", answers(red=metric.answers_needed - 1)) < 1
