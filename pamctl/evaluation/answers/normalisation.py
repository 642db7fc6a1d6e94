"""What the VQA evaluation takes off an answer before it compares: the official rules with their quirks.

- A mark of `PUNCTUATION` becomes a space; all of that mark vanish instead where one of them stands beside a
  space, and all marks vanish where a comma stands between digits anywhere ("1,000 yellow-green" is
  "1000 yellowgreen").
- A period vanishes unless a digit follows. The rule is written as a look-behind with a typo, which is always
  true: "3." loses its period too.
- Letters are lowered, articles dropped, number words up to ten are digits ("none" is "0"), and words of
  `CONTRACTIONS` get their apostrophe.

Nothing else: other marks (% $ # & : ' *), typographic quotes and accents count as they are. Digits are those
of any script.

Source: GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py, which stops after 32 periods by
passing a flag for a count; google-research/big_vision, evaluators/proj/paligemma/transfers/vqav2.py, which
does not. Here none is left.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from pamctl.evaluation.answers.contractions import CONTRACTIONS

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS: Mapping[str, str] = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}

_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_WORDS = {**CONTRACTIONS, **NUMBERS}

_LONGEST_REMEMBERED = 128
"""In characters. Answers repeat, and are short; what a model rambles need not be kept."""


def one_line(answer: str) -> str:
    """The answer with newlines and tabs as spaces, trimmed: done always, before anything is compared."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalised(answer: str) -> str:
    """An answer of one line by the rules above; it may be nothing ("the" is "")."""
    return _remembered(answer) if len(answer) <= _LONGEST_REMEMBERED else _normalise(answer)


@lru_cache(maxsize=2**16)
def _remembered(answer: str) -> str:
    return _normalise(answer)


def _normalise(answer: str) -> str:
    words = _without_punctuation(answer).lower().split()
    return " ".join(_WORDS.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(answer: str) -> str:
    in_number = _DIGIT_COMMA.search(answer) is not None
    replacements = {
        ord(mark): "" if in_number or f"{mark} " in answer or f" {mark}" in answer else " "
        for mark in PUNCTUATION
        if mark in answer
    }
    return _PERIOD.sub("", answer.translate(replacements))
