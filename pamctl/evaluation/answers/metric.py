"""What an answer metric is: a score of one prediction, and whether an answer can be read out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _always(_: str) -> bool:
    return True


@dataclass(frozen=True)
class Metric:
    """How predictions are scored against the accepted answers of their examples.

    Attributes:
        formula: what the score is, in one line for users.
        score: (prediction, accepted answers) -> 0 to 1; 0 where nothing is accepted. The order of the answers
            plays no part.
        reads: whether an answer can be read out of a prediction. One that cannot be read scores 0, and
            belongs into a count of its own: the model did not answer in the form that was asked for.
        answers_needed: the fewest accepted answers with which a prediction can score 1.
    """

    name: str
    formula: str
    score: Callable[[str, Sequence[str]], float]
    reads: Callable[[str], bool] = _always
    answers_needed: int = 1
