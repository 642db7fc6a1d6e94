"""What holds for every answer metric, whatever is answered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.evaluation.answers import METRICS, metric_named

WORDS = ["yes", "Yes.", "the", "a cat", "cat", "two", "2", "1,000", "dont", "B", "The answer is B.", "É", " "]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
LISTS = st.lists(TEXTS, max_size=11)
EVERY_METRIC = pytest.mark.parametrize("name", METRICS)
ONE_SIDED = {"coin-gqa", "coin-ocrvqa", "coin-vqa"}
"""Metrics that trim the prediction and take answers as they are."""

few = settings(max_examples=30)


@EVERY_METRIC
@few
@given(prediction=TEXTS, answers=LISTS)
def test_a_score_is_between_0_and_1(name: str, prediction: str, answers: list[str]) -> None:
    metric = metric_named(name)
    assert 0 <= metric.score(prediction, answers) <= 1
    assert metric.reads(prediction) or metric.score(prediction, answers) == 0


@EVERY_METRIC
@few
@given(prediction=TEXTS, answers=LISTS, data=st.data())
def test_the_order_of_the_answers_plays_no_part(
    name: str, prediction: str, answers: list[str], data: st.DataObject
) -> None:
    score = metric_named(name).score
    assert score(prediction, data.draw(st.permutations(answers))) == score(prediction, answers)


@pytest.mark.parametrize("name", [name for name in METRICS if "scienceqa" not in name])
@few
@given(word=st.text(alphabet="bdefgh", min_size=2), more=st.integers(0, 6))
def test_what_everybody_answers_is_right(name: str, word: str, more: int) -> None:
    metric = metric_named(name)
    assert metric.score(word, [word] * (metric.answers_needed + more)) == 1


@pytest.mark.parametrize("name", ["scienceqa", "coin-scienceqa"])
@few
@given(letter=st.sampled_from("ABCDE"))
def test_the_right_letter_is_right(name: str, letter: str) -> None:
    sentence = f"The answer is {letter}."
    assert metric_named(name).score(sentence, [sentence]) == 1


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ONE_SIDED])
@few
@given(prediction=TEXTS, answers=st.lists(TEXTS, min_size=1, max_size=10), place=st.integers(0, 9))
def test_one_more_who_agrees_never_costs(name: str, prediction: str, answers: list[str], place: int) -> None:
    agreed = list(answers)
    agreed[place % len(agreed)] = prediction
    score = metric_named(name).score
    assert score(prediction, agreed) >= score(prediction, answers)
