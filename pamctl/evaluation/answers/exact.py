"""A prediction is right when it is an accepted answer, word for word.

Source: google-research/big_vision, evaluators/proj/paligemma/transfers/vqa.py (its `acc` of one answer, its
`acc_any` of several), with `to_lower` for OCR-VQA and RSVQA and without for AI2D and A-OKVQA, whose options
stand in the prompt. Space around either side is not counted here; there it is.
"""

from collections.abc import Sequence

from pamctl.evaluation.answers.metric import Metric


def exact(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals an accepted answer once both are trimmed and lower-cased, else 0."""
    return float(_lowered(prediction) in {_lowered(answer) for answer in answers})


def exact_case(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals an accepted answer once both are trimmed, else 0."""
    return float(prediction.strip() in {answer.strip() for answer in answers})


def _lowered(answer: str) -> str:
    return answer.strip().lower()


EXACT = Metric("exact", "1 where the prediction is an accepted answer (trimmed, lower-cased), else 0", exact)
EXACT_CASE = Metric(
    "exact-case", "1 where the prediction is an accepted answer (trimmed, case kept), else 0", exact_case
)
