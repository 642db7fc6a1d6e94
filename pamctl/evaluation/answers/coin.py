"""The CoIN benchmark's own scoring, which is not that of the data sets' authors.

Predictions are trimmed, as CoIN's decoding does before it writes them; accepted answers are taken as they
are. CoIN has one answer a question (ten for TextVQA); where there are several, any of them counts.

    coin-vqa        VQAv2, VizWiz: equal in capitals.
    coin-ocrvqa     equal in small letters, but wrong where the prediction has "Unanswerable" in it.
    coin-gqa        the prediction in small letters, without periods at its end, equals the answer.
    coin-scienceqa  the letter is the first word of one character, in capitals: "B" and "B. blue" are read as
                    B, and so is "(b)", but "It is a B" as A and "It's B" as S. Other than A to E cannot be
                    read.
    coin-textvqa    leave-one-out soft accuracy as `vqa`, but always normalised, and before that lower-cased,
                    without commas and question marks, "'s" a word of its own (M4C's evaluator). Commas
                    between digits are gone by then and take no other marks along.

Source: zackschen/CoIN, ETrain/Eval/LLaVA/CoIN/eval_*.py, convert_gqa_for_eval.py and m4c_evaluator.py.
"""

import re
from collections.abc import Sequence

from pamctl.evaluation.answers.metric import Metric
from pamctl.evaluation.answers.normalisation import normalised, one_line
from pamctl.evaluation.answers.soft_accuracy import ENOUGH, leave_one_out

OPTIONS = ("A", "B", "C", "D", "E")
_WORD_OF_ONE = re.compile(r"\b\w\b")


def coin_vqa(prediction: str, answers: Sequence[str]) -> float:
    """1 where the trimmed prediction is an answer, both in capitals."""
    return float(prediction.strip().upper() in {answer.upper() for answer in answers})


def coin_ocr_vqa(prediction: str, answers: Sequence[str]) -> float:
    """1 where the trimmed prediction is an answer, both in small letters, and does not say Unanswerable."""
    if "Unanswerable" in prediction:
        return 0.0
    return float(prediction.strip().lower() in {answer.lower() for answer in answers})


def coin_gqa(prediction: str, answers: Sequence[str]) -> float:
    """1 where the trimmed prediction, without periods at its end and in small letters, is an answer."""
    return float(prediction.strip().rstrip(".").lower() in answers)


def coin_science_qa(prediction: str, answers: Sequence[str]) -> float:
    """1 where a letter can be read and is that of an answer, which is read in the same way."""
    letter = coin_letter_of(prediction)
    return float(letter is not None and letter in map(coin_letter_of, answers))


def coin_letter_of(prediction: str) -> str | None:
    """A to E; None where none can be read."""
    word = _WORD_OF_ONE.search(prediction)
    letter = word[0].upper() if word else None
    return letter if letter in OPTIONS else None


def coin_text_vqa(prediction: str, answers: Sequence[str]) -> float:
    """Leave-one-out soft accuracy of answers that M4C's rules normalise."""
    accepted = [m4c_normalised(answer) for answer in answers]
    return leave_one_out(accepted.count(m4c_normalised(prediction)), len(accepted))


def m4c_normalised(answer: str) -> str:
    """M4C's tokenisation, then the VQA evaluation's normalisation."""
    tokens = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalised(one_line(tokens))


COIN_VQA = Metric("coin-vqa", "1 where the prediction is the answer (any case), else 0", coin_vqa)
COIN_OCR_VQA = Metric(
    "coin-ocrvqa", 'as coin-vqa, but 0 where the prediction has "Unanswerable" in it', coin_ocr_vqa
)
COIN_GQA = Metric(
    "coin-gqa",
    "1 where the prediction (lower-cased, periods at its end removed) is the answer, else 0",
    coin_gqa,
)
COIN_SCIENCE_QA = Metric(
    "coin-scienceqa",
    "letter A to E that is the first word of one character: 1 where it is the right one, else 0",
    coin_science_qa,
    reads=lambda prediction: coin_letter_of(prediction) is not None,
)
COIN_TEXT_VQA = Metric(
    "coin-textvqa",
    "as vqa, but always normalised, and by M4C's rules",
    coin_text_vqa,
    answers_needed=ENOUGH + 1,
)
