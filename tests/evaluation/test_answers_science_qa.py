"""ScienceQA's letter, and predictions in which there is none."""

import pytest

from pamctl.evaluation.answers import metric_named

METRIC = metric_named("scienceqa")


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("The answer is B.", 1.0),
        ("the ANSWER is b.", 1.0),
        ("The answer is B. It is red.", 1.0),
        ("The answer is C.", 0.0),
        ("The answer is B.\n", 1.0),
    ],
)
def test_the_letter_counts(prediction: str, score: float) -> None:
    assert METRIC.reads(prediction)
    assert METRIC.score(prediction, ["The answer is B."]) == score


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        "B",
        "B.",
        "The answer is B",
        "The answer is BB.",
        "The answer is (B).",
        "The answer is 2.",
        "The answer is É.",
        " The answer is B.",
        "I think the answer is B.",
        "The  answer is B.",
    ],
)
def test_no_letter_can_be_read_and_none_is_right(prediction: str) -> None:
    assert not METRIC.reads(prediction)
    assert METRIC.score(prediction, ["The answer is B."]) == 0
    assert METRIC.score(prediction, [prediction]) == 0


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        (["b"], 1.0),
        ([" B\n"], 1.0),
        (["A", "the answer is b."], 1.0),
        (["A"], 0.0),
        (["red"], 0.0),
        ([], 0.0),
    ],
)
def test_an_accepted_answer_is_the_sentence_or_the_letter(answers: list[str], score: float) -> None:
    assert METRIC.score("The answer is B.", answers) == score
