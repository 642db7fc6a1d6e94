"""Which answers stand where in a sequence, and which examples show best what was forgotten."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.summary import Comparison

RIGHT = 50.0
"""The score (%) from which an answer counts as right."""
Draw: TypeAlias = tuple[str, int | None]
"""Order and seed."""
Known: TypeAlias = Mapping[tuple[str, str], Mapping[str, Prediction]]
"""Predictions by (adapter, task), `BASE` for no adapter, then by the example's id."""
BASE = ""


@dataclass(frozen=True)
class Answered:
    """One sequence of a method, and what its states answer.

    Attributes:
        matrix: the sequence.
        known: the predictions of every state.
    """

    matrix: AccuracyMatrix
    known: Known

    def answers(self, task: str, id: str) -> list[Prediction | None]:
        """What the base, and then the state after each task, answers to an example; None where not known."""
        states = (BASE, *self.matrix.adapters)
        return [self.known.get((state, task), {}).get(id) if state is not None else None for state in states]

    def ids(self, task: str) -> Iterable[str]:
        """The examples that the state after the task itself answers."""
        learned = self.matrix.adapters[self.matrix.tasks.index(task)]
        return self.known.get((learned or "no adapter", task), {})

    def forgets(self, task: str, id: str) -> bool:
        """Whether the answer was right when the task was learned and is wrong in the end."""
        answers = self.answers(task, id)
        learned, last = answers[self.matrix.tasks.index(task) + 1], answers[-1]
        return learned is not None and last is not None and learned.score >= RIGHT > last.score


def known_predictions(predictions: Iterable[Prediction]) -> Known:
    """Predictions by who answered; one that tells neither adapter nor base is left out, the last counts."""
    known: dict[tuple[str, str], dict[str, Prediction]] = {}
    for prediction in predictions:
        state = BASE if prediction.stage == "base" else prediction.adapter
        if state is not None:
            known.setdefault((state, prediction.task), {})[prediction.id] = prediction
    return known


def answered_sequences(comparison: Comparison, known: Known) -> tuple[Draw, list[Answered]] | None:
    """The order and seed that most methods have predictions of, with these; None where none has any."""
    found: dict[Draw, dict[str, Answered]] = {}
    for system in comparison.sequential:
        for matrix in comparison.of(system):
            answered = Answered(matrix, known)
            if matrix.adapters and any(True for task in matrix.tasks for _ in answered.ids(task)):
                found.setdefault((comparison.order_of(matrix), matrix.seed), {}).setdefault(system, answered)
    if not found:
        return None
    draw = max(found, key=lambda draw: len(found[draw]))
    return draw, list(found[draw].values())


def telling_examples(task: str, sequences: Sequence[Answered], most: int) -> list[str]:
    """The ids of some examples, those first that most methods forget."""
    ids = dict.fromkeys(id for sequence in sequences for id in sequence.ids(task))
    forgotten = {id: sum(sequence.forgets(task, id) for sequence in sequences) for id in ids}
    return sorted(ids, key=lambda id: -forgotten[id])[:most]
