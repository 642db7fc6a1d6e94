"""CoIN's scoring, and where it parts from the data sets' own."""

import pytest

from pamctl.evaluation.answers import METRICS, metric_named
from pamctl.evaluation.answers.coin import m4c_normalised


def score(metric: str, prediction: str, *answers: str) -> float:
    return metric_named(metric).score(prediction, answers)


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("red", "Red", 1.0),
        (" RED\n", "red", 1.0),
        ("red.", "red", 0.0),
        ("the red", "red", 0.0),
        ("straße", "STRASSE", 1.0),  # equal in capitals, though not in small letters
        ("red", "red ", 0.0),  # the answer is taken as it is
        ("", "red", 0.0),
    ],
)
def test_vqav2_and_vizwiz_are_equal_in_capitals(prediction: str, answer: str, right: float) -> None:
    assert score("coin-vqa", prediction, answer) == right


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Jane Austen", "jane austen", 1.0),
        ("Unanswerable", "unanswerable", 0.0),
        ("Unanswerable Questions", "Unanswerable Questions", 0.0),
        ("unanswerable", "unanswerable", 1.0),  # only with a capital
        ("straße", "STRASSE", 0.0),
        ("", "red", 0.0),
    ],
)
def test_ocr_vqa_never_accepts_unanswerable(prediction: str, answer: str, right: float) -> None:
    assert score("coin-ocrvqa", prediction, answer) == right


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Yes.", "yes", 1.0),
        ("yes...", "yes", 1.0),
        (" yes. ", "yes", 1.0),
        (".5", ".5", 1.0),
        ("yes!", "yes", 0.0),
        ("yes .", "yes", 0.0),  # a space stays before the period that goes
        ("yes", "Yes", 0.0),  # the answer is taken as it is
        ("", "yes", 0.0),
    ],
)
def test_gqa_takes_periods_off_the_end(prediction: str, answer: str, right: float) -> None:
    assert score("coin-gqa", prediction, answer) == right


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("B. the blue one", "B"),
        ("(B) blue", "B"),
        ("The answer is B.", "B"),
        ("It is a B", "A"),
        ("It's B", None),  # s
        ("2 or B", None),  # 2
        ("B_", None),  # an underscore is part of the word
        ("F", None),
        ("blue", None),
        ("é", None),
        ("", None),
    ],
)
def test_the_first_word_of_one_character_is_science_qas_letter(prediction: str, letter: str | None) -> None:
    metric = metric_named("coin-scienceqa")
    assert metric.reads(prediction) == (letter is not None)
    assert [option for option in "ABCDEF" if metric.score(prediction, [option])] == [letter] * bool(letter)


@pytest.mark.parametrize(
    ("answer", "counts_as"),
    [
        ("bob's", "bob 's"),
        ("Let's", "let 's"),  # taken apart before it is looked for among contractions
        ("what?", "what"),
        ("x?y", "xy"),  # `vqa` has "x y"
        ("red,blue", "redblue"),  # `vqa` has "red blue"
        ("1,000 yellow-green", "1000 yellow green"),  # `vqa` has "1000 yellowgreen"
        ("The dog's two bones.", "dog 's 2 bones"),
        ("stop\nsign", "stop sign"),
        ("?", ""),
    ],
)
def test_textvqa_is_tokenised_before_it_is_normalised(answer: str, counts_as: str) -> None:
    assert m4c_normalised(answer) == counts_as


@pytest.mark.parametrize(
    ("prediction", "times", "right"),
    [("the cat", 0, 0.0), ("The Cat", 1, 0.3), ("cat?", 2, 0.6), ("a cat", 3, 0.9), ("CAT", 10, 1.0)],
)
def test_textvqa_is_soft_and_always_normalised(prediction: str, times: int, right: float) -> None:
    assert score("coin-textvqa", prediction, *["cat"] * times, *["dog"] * (10 - times)) == right


def test_an_answer_that_is_the_same_ten_times_is_normalised_by_coin_alone() -> None:
    assert score("coin-textvqa", "yes.", *["Yes"] * 10) == 1
    assert score("vqa", "yes.", *["Yes"] * 10) == 0


@pytest.mark.parametrize("name", [name for name in METRICS if name.startswith("coin-")])
def test_nothing_is_right_where_nothing_is_accepted(name: str) -> None:
    assert score(name, "a") == 0
