"""The VQA evaluation's normalisation, quirk by quirk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.evaluation.answers.contractions import CONTRACTIONS
from pamctl.evaluation.answers.normalisation import PUNCTUATION, normalised, one_line


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("red", "red"),
        (" red\n", "red"),
        ("a\tb\nc", "a b c"),
        ("a\n\nb", "a  b"),
        ("\u00a0red\u3000", "red"),
        ("a\rb", "a\rb"),  # a carriage return within is not named by the rules
        ("The Cat!", "The Cat!"),
        ("", ""),
        ("\n\t ", ""),
    ],
)
def test_space_around_and_line_breaks_always_go(answer: str, plain: str) -> None:
    assert one_line(answer) == plain


@pytest.mark.parametrize(
    ("answer", "counts_as"),
    [
        # A mark is a space ...
        ("yellow-green", "yellow green"),
        ("red,blue", "red blue"),
        ("yes!", "yes"),
        ("a/c", "c"),
        ("[1]", "1"),
        # ... or nothing, everywhere, where one of it stands beside a space ...
        ("red, blue", "red blue"),
        ("up- side-down", "up sidedown"),
        ("up-side -down", "upside down"),
        ("red/ blue/green", "red bluegreen"),
        ("up- side/down", "up side down"),  # each mark for itself
        # ... or all of them nothing, where a comma stands between digits.
        ("1,000", "1000"),
        ("1,000 yellow-green", "1000 yellowgreen"),
        ("1, 2", "1 2"),
        # Every mark of the list, and none besides.
        *((f"x{mark}y", "x y") for mark in PUNCTUATION),
        *((f"x{mark}y", f"x{mark}y") for mark in "%$#&*~^|:'’“…·，"),
    ],
)
def test_punctuation_becomes_a_space_or_nothing(answer: str, counts_as: str) -> None:
    assert normalised(answer) == counts_as


@pytest.mark.parametrize(
    ("answer", "counts_as"),
    [
        ("yes.", "yes"),
        ("u.s.a.", "usa"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("v.2", "v.2"),
        ("3.", "3"),  # the typo: a period after a digit was to be kept
        ("3.a", "3a"),
        ("3..5", "3.5"),
        ("...", ""),
        ("." * 40 + "x", "x"),  # the official code stops after 32
        ("٣.٤", "٣.٤"),  # digits of any script
        ("3.²", "3²"),  # a superscript is none
    ],
)
def test_a_period_stays_only_before_a_digit(answer: str, counts_as: str) -> None:
    assert normalised(answer) == counts_as


@pytest.mark.parametrize(
    ("answer", "counts_as"),
    [
        ("The Cat", "cat"),
        ("an apple a day", "apple day"),
        ("a", ""),
        ("A.", ""),
        ("theatre", "theatre"),
        ("none", "0"),
        ("Ten", "10"),
        ("one-two", "1 2"),
        ("eleven", "eleven"),
        ("twoo", "twoo"),
        ("dont", "don't"),
        ("Cant.", "can't"),
        ("don't", "don't"),
        ("don’t", "don’t"),
        ("somebody'd", "somebodyd"),
        ("im", "im"),  # the table has "Im", which no lowered word is
        ("İ", "i\u0307"),
        ("  two\u00a0 dogs ", "2 dogs"),
        ("", ""),
    ],
)
def test_words_are_lowered_dropped_and_replaced(answer: str, counts_as: str) -> None:
    assert normalised(answer) == counts_as


def test_every_contraction_of_small_letters_is_replaced() -> None:
    assert len(CONTRACTIONS) == 120
    small = {word for word in CONTRACTIONS if word.islower()}
    assert set(CONTRACTIONS) - small == {"Id've", "I'dve", "Im", "Ive"}
    assert all(normalised(word) == CONTRACTIONS[word] for word in small)


@given(st.text(alphabet=st.sampled_from("ab19 .,'-;!?the\nÉ٣"), max_size=20))
def test_normalising_twice_changes_nothing_more(answer: str) -> None:
    once = normalised(one_line(answer))
    assert normalised(once) == once


def test_a_huge_answer_is_normalised_in_time() -> None:
    assert normalised("the cat, " * 200_000) == " ".join(["cat"] * 200_000)
