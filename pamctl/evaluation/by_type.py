"""What lies below a score after the last task: scores by question type, and answers that were unread."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import Comparison, Spread, spread_of

MEAN = "mean of types"
"""Each type counts the same in it: RSVQA calls it the average accuracy."""


def scores_by_type(comparison: Comparison) -> dict[str, dict[str, dict[str, Spread]]]:
    """For each task whose questions have types, of each system the score of each type and `MEAN`."""
    found: dict[str, dict[str, dict[str, Spread]]] = {}
    for task in comparison.tasks:
        for system in comparison.systems:
            told = [result.types for result in _finals(comparison, system, task) if result.types]
            if told:
                scores = [{name: of.score for name, of in types.items()} for types in told]
                found.setdefault(task, {})[system] = _spreads(scores)
    return found


def unread_answers(comparison: Comparison) -> dict[str, dict[str, Spread]]:
    """For each task of which that was counted, of each system how many percent of the answers were unread."""
    found: dict[str, dict[str, Spread]] = {}
    for task in comparison.tasks:
        for system in comparison.systems:
            shares = [
                100 * result.unread / result.n
                for result in _finals(comparison, system, task)
                if result.unread is not None
            ]
            if shares:
                found.setdefault(task, {})[system] = spread_of(shares)
    return found


def unread_tasks(comparison: Comparison) -> dict[str, dict[str, Spread]]:
    """Those of `unread_answers` of which any system has any."""
    shares = unread_answers(comparison)
    return {task: own for task, own in shares.items() if any(share.mean for share in own.values())}


def _finals(comparison: Comparison, system: str, task: str) -> list[Result]:
    return [matrix.finals[task] for matrix in comparison.of(system) if task in matrix.finals]


def _spreads(scores: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    names = sorted({name for each in scores for name in each})
    by_type = {name: spread_of([each[name] for each in scores if name in each]) for name in names}
    return {**by_type, MEAN: spread_of([fmean(each.values()) for each in scores])}
