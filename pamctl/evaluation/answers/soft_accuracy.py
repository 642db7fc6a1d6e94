"""Soft accuracy: several people answered, and a prediction is right as far as they gave it too.

`vqa` (VQAv2, TextVQA): leave each answer out in turn, score min(1, matches among the others / 3), and take
the mean. Of ten answers 0, 1, 2, 3, 4 or more matches score 0, .3, .6, .9, 1. Answers and prediction are
normalised only where the answers are not all the same, so that text read in the image is left as it is.
With fewer than ten the same formula holds, and fewer than four cannot reach 1: three that all match score
2/3, two 1/3, and a single one 0, for nothing is left when it is left out.

`vqa-simple` (VizWiz, OKVQA): min(1, matches / 3), strings as they are.

`vqa-single` (RSVQA, for comparison only): the same once all are lower-cased, which big_vision's evaluator
does to lists of one answer and calls `acc`: a right prediction scores 1/3. Its `acc_any` is `exact`.

Sources: GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py; google-research/big_vision,
evaluators/proj/paligemma/transfers/vqav2.py, vqa.py and rsvqa.py.
"""

from collections.abc import Sequence

from pamctl.evaluation.answers.metric import Metric
from pamctl.evaluation.answers.normalisation import normalised, one_line

ENOUGH = 3
"""So many matches make a prediction right."""


def vqa(prediction: str, answers: Sequence[str]) -> float:
    """Leave-one-out soft accuracy, normalised where the answers are not all the same; 0 without answers."""
    given, accepted = one_line(prediction), [one_line(answer) for answer in answers]
    if len(set(accepted)) > 1:
        given, accepted = normalised(given), [normalised(answer) for answer in accepted]
    return leave_one_out(accepted.count(given), len(accepted))


def vqa_simple(prediction: str, answers: Sequence[str]) -> float:
    """min(1, matches / 3), strings as they are."""
    return min(1.0, answers.count(prediction) / ENOUGH)


def vqa_single(prediction: str, answers: Sequence[str]) -> float:
    """min(1, matches / 3) once all are lower-cased; of one answer at most 1/3."""
    return vqa_simple(prediction.lower(), [answer.lower() for answer in answers])


def leave_one_out(matches: int, answers: int) -> float:
    """Mean over the answers of min(1, matches among the others / 3); 0 without answers.

    Those that match leave matches - 1 others, the rest leave all of them. The sum is one of thirds, in whole
    numbers, so that the score is rounded once.
    """
    if not answers:
        return 0.0
    thirds = matches * min(ENOUGH, matches - 1) + (answers - matches) * min(ENOUGH, matches)
    return thirds / (ENOUGH * answers)


VQA = Metric(
    "vqa",
    "mean over the answers, each left out once, of min(1, matches among the others / 3); "
    "normalised where the answers differ",
    vqa,
    answers_needed=ENOUGH + 1,
)
VQA_SIMPLE = Metric(
    "vqa-simple", "min(1, matches / 3), strings as they are", vqa_simple, answers_needed=ENOUGH
)
VQA_SINGLE = Metric(
    "vqa-single",
    "min(1, matches / 3), lower-cased: at most 1/3 where there is one answer",
    vqa_single,
    answers_needed=ENOUGH,
)
