"""Answer metrics against open-flamingo's and lmms-eval's, on 10 000 random answer sets.

open-flamingo 2.0.1, `open_flamingo/eval/vqa_metric.py`: the VQA evaluation in Python 3, always normalising.
So it scores the sets whose answers differ as it is, and those whose answers are all the same with its two
steps of normalisation switched off.

lmms-eval 0.7.3, `lmms_eval/tasks/_task_utils/vqa_eval_metric.py`: M4C's answer processor, which CoIN scores
TextVQA by. The answers that it has processed are scored by open-flamingo's, likewise switched off.

Both are had by `pip install --no-deps lmms-eval open-flamingo`: each file is read by itself, without its
package, whose own imports want models and servers.
"""

import random
import re
import warnings
from collections import Counter
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any, NamedTuple

import pytest

from pamctl.evaluation.answers import metric_named
from pamctl.evaluation.answers.coin import m4c_normalised
from pamctl.evaluation.answers.contractions import CONTRACTIONS
from pamctl.evaluation.answers.normalisation import ARTICLES, NUMBERS, PUNCTUATION, normalised, one_line

WORDS = [
    *"red blue dog cats stop sign left theatre tennis-racket t-shirt u.s.a. bob's what? x/y".split(),
    *"a an the A The none zero one Two three ten eleven".split(),
    *"0 1 2 10 3.5 .5 3. 1,000 1,,000 10:30 50% $5 #1 2nd ½ ² ٣ ٣.٤ ٣,٤".split(),
    *"café cafe\u0301 NAÏVE straße İstanbul 猫 猫，犬 don’t “yes” ﬁ \U0001f415".split(),
    *CONTRACTIONS,
    *(word.upper() for word in list(CONTRACTIONS)[::7]),
]
SPACES = [" "] * 12 + ["", "  ", "\n", "\t", "\u00a0"]
MARKS = [*PUNCTUATION, *".:'%&*~^|", "...", ", ", "- "]


class Set(NamedTuple):
    """A prediction and the answers of some people."""

    prediction: str
    answers: list[str]

    @property
    def differ(self) -> bool:
        return len({re.sub(r"[\n\t]", " ", answer).strip() for answer in self.answers}) > 1


def random_answer(draw: random.Random) -> str:
    words = [draw.choice(WORDS) for _ in range(draw.choice([1, 1, 1, 2, 2, 3, 4]))]
    return "".join(word + draw.choice(SPACES) for word in words)


def respelled(draw: random.Random, answer: str) -> str:
    """The same answer as another person may write it, which may count as another."""
    change = draw.choice(["none", "none", "case", "mark", "article", "space", "contraction"])
    place = draw.randrange(len(answer) + 1)
    return {
        "none": answer,
        "case": draw.choice([answer.upper(), answer.lower(), answer.capitalize()]),
        "mark": answer[:place] + draw.choice(MARKS) + answer[place:],
        "article": f"{draw.choice(['a', 'an', 'The'])} {answer}",
        "space": draw.choice([f" {answer}", f"{answer}\n", answer.replace(" ", "\t")]),
        "contraction": answer.replace("'", ""),
    }[change]


def random_set(draw: random.Random) -> Set:
    """Mostly ten answers, of a few kinds; one set in five has all the same."""
    size = draw.choice([10] * 8 + [draw.randint(1, 9)] * 2)
    kinds = [random_answer(draw) for _ in range(draw.choice([1, 2, 3, 5]))]
    if draw.random() < 0.2:
        answers = [kinds[0]] * size
    else:
        answers = [respelled(draw, draw.choice(kinds)) for _ in range(size)]
    said = draw.choice([*answers, random_answer(draw)])
    return Set(draw.choice([said, respelled(draw, said)]), answers)


@pytest.fixture(scope="module")
def sets() -> list[Set]:
    draw = random.Random(0)
    return [random_set(draw) for _ in range(10_000)]


def file_of(distribution: str, path: str) -> Any:
    """One file of a distribution as a module."""
    try:
        file = metadata.distribution(distribution).locate_file(path)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: pip install --no-deps {distribution}")
    spec = spec_from_file_location(f"file_of_{distribution.replace('-', '_')}", str(file))
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its regular expressions are not raw strings
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def flamingo() -> Any:
    return file_of("open-flamingo", "open_flamingo/eval/vqa_metric.py").VQAEval


@pytest.fixture
def m4c() -> Any:
    """Anew for each test, because it adds the words it sees to its table of numbers."""
    return file_of("lmms-eval", "lmms_eval/tasks/_task_utils/vqa_eval_metric.py").EvalAIAnswerProcessor()


class Questions:
    """What open-flamingo's evaluation asks of its annotations and its results."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.qa = dict(enumerate(entries))

    def getQuesIds(self) -> list[int]:
        return list(self.qa)


def scores_of(evaluation: Any, sets: list[Set]) -> list[float]:
    """0 to 1 for each set."""
    annotations = [
        {
            "answers": [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers)],
            "question_type": "any",
            "answer_type": "any",
        }
        for _, answers in sets
    ]
    predictions = [{"answer": prediction} for prediction, _ in sets]
    scored = evaluation(Questions(annotations), Questions(predictions), n=12)
    scored.evaluate()
    return [scored.evalQA[number] / 100 for number in range(len(sets))]


def without_normalisation(evaluation: Any) -> Any:
    as_it_is = {"processPunctuation": lambda _, text: text, "processDigitArticle": lambda _, text: text}
    return type("Plain", (evaluation,), as_it_is)


def test_the_sets_try_every_score_of_ten_answers(sets: list[Set]) -> None:
    scores = Counter(round(metric_named("vqa").score(*case), 6) for case in sets if len(case.answers) == 10)
    assert set(scores) == {0, 0.3, 0.6, 0.9, 1}
    assert min(scores.values()) > 500
    assert 2000 < sum(not case.differ for case in sets) < 4000


def test_the_tables_are_the_same(m4c: Any) -> None:
    assert CONTRACTIONS == m4c.CONTRACTIONS
    assert NUMBERS == m4c.NUMBER_MAP
    assert set(m4c.ARTICLES) == ARTICLES
    assert set(m4c.PUNCTUATIONS) == set(PUNCTUATION)


def test_answers_are_normalised_as_by_open_flamingo(flamingo: Any, sets: list[Set]) -> None:
    steps = flamingo(None, None)
    for answer in {one_line(answer) for case in sets for answer in (case.prediction, *case.answers)}:
        assert normalised(answer) == steps.processDigitArticle(steps.processPunctuation(answer)), answer


def test_vqa_is_open_flamingos_where_the_answers_differ(flamingo: Any, sets: list[Set]) -> None:
    cases = [case for case in sets if case.differ]
    ours = [metric_named("vqa").score(*case) for case in cases]
    assert ours == pytest.approx(scores_of(flamingo, cases), abs=1e-9)


def test_vqa_does_not_normalise_where_they_are_the_same(flamingo: Any, sets: list[Set]) -> None:
    cases = [case for case in sets if not case.differ]
    ours = [metric_named("vqa").score(*case) for case in cases]
    assert ours == pytest.approx(scores_of(without_normalisation(flamingo), cases), abs=1e-9)


def test_coins_textvqa_is_soft_over_what_lmms_eval_normalises(
    flamingo: Any, m4c: Any, sets: list[Set]
) -> None:
    theirs = {answer: m4c(answer) for case in sets for answer in (case.prediction, *case.answers)}
    assert {answer: m4c_normalised(answer) for answer in theirs} == theirs
    processed = [
        Set(theirs[prediction], [theirs[answer] for answer in answers]) for prediction, answers in sets
    ]
    ours = [metric_named("coin-textvqa").score(*case) for case in sets]
    assert ours == pytest.approx(scores_of(without_normalisation(flamingo), processed), abs=1e-9)
