"""ScienceQA: the letter in "The answer is B." is the prediction.

A prediction that does not begin so, in any case and with its period, cannot be read and is wrong.

Source: google-research/big_vision, evaluators/proj/paligemma/transfers/science_qa.py, which takes an answer
that cannot be read for a match of another such; here it matches nothing. An accepted answer may also be the
letter alone.
"""

import re
from collections.abc import Sequence

from pamctl.evaluation.answers.metric import Metric

_ANSWER = re.compile(r"the answer is ([a-z])\.")
_LETTER = re.compile(r"[a-z]")


def science_qa(prediction: str, answers: Sequence[str]) -> float:
    """1 where a letter can be read and an accepted answer has the same, else 0."""
    letter = letter_of(prediction)
    return float(letter is not None and letter in map(_accepted, answers))


def letter_of(prediction: str) -> str | None:
    """The letter, small; None where none can be read."""
    found = _ANSWER.match(prediction.lower())
    return found[1] if found else None


def _accepted(answer: str) -> str | None:
    bare = answer.strip().lower()
    return bare if _LETTER.fullmatch(bare) else letter_of(answer)


SCIENCE_QA = Metric(
    "scienceqa",
    'letter of "The answer is B.": 1 where it is the right one, 0 where another or none can be read',
    science_qa,
    reads=lambda prediction: letter_of(prediction) is not None,
)
