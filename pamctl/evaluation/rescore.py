"""How predictions that are kept in a file are scored again, without the model that made them."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pamctl.adapters.provenance import Stage
from pamctl.evaluation.json_lines import refuse_same, refuse_unwritable
from pamctl.evaluation.predictions import Prediction, predictions_file, read_predictions
from pamctl.evaluation.results import (
    Result,
    append_results,
    examples_fingerprint,
    held_results,
    is_last_word,
)
from pamctl.evaluation.scored_tasks import open_tasks
from pamctl.evaluation.scoring import PLACE, placed, scored, summed_up
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Task
from pamctl.tasks.task import Example
from pamctl.whole_output import refuse_existing

NAMED = 3
"""How many examples a refusal names."""


def rescore(
    file: Path,
    tasks: Sequence[str | Path | Task],
    *,
    split: str = "test",
    limit: int | None = None,
    stage: Stage | None = None,
    order: str | None = None,
    run: str | None = None,
    results: Path | None = None,
    predictions: Path | None = None,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Score the predictions of a file again, with the answers and the metric that the tasks have now.

    Of several states in the file each has its result: task by task, in the order of the file.

    Args:
        file: as `score_adapter` wrote it to `predictions`, or a run to its predictions.jsonl.
        limit: the first so many examples were answered; None for all.
        stage, order, run: labels of the results; None takes those that the predictions tell.
        results: JSON Lines file to append to what it does not hold already.
        predictions: JSON Lines file to write, with the scores found now.
        force: replace an existing `predictions`, append to `results` what it holds too.
        warn: told what to know before trusting a score.

    Raises:
        Refusal: a line or a task is at fault, or a state did not answer each of the examples once.
        UsageRefusal: the file holds no answers to a task, or they are of another split.
    """
    refuse_same(results, predictions)
    refuse_same(results, file)
    if results:
        refuse_unwritable(results)
    if predictions:
        refuse_existing(predictions, force=force, file=True)
    held, notes = held_results(results) if results else ([], [])
    opened = open_tasks(tasks, split, warn)
    states, torn = _states(file, opened, split, warn)
    for note in (*notes, *torn):
        warn(note)
    labels = {"stage": stage, "order": order, "run": run}
    given: dict[str, Any] = {name: label for name, label in labels.items() if label}
    rescored: list[tuple[Result, list[Prediction]]] = []
    for task in opened:
        examples = task.split(split)[:limit]
        for answered in states[task.name]:
            again = scored(task, split, examples, _matched(file, examples, answered, warn))
            blank = _unscored(file, task, split, examples, answered[0], given, warn)
            rescored.append((summed_up(blank, again), again))
    if predictions:
        with predictions_file(predictions, force=force) as written:
            for result, again in rescored:
                written.add(placed(again, result))
    found = [result for result, _ in rescored]
    new = [result for result in found if force or not is_last_word(result, held)]
    if results and new:
        append_results(results, new)
    return found


def _states(
    file: Path, tasks: Sequence[Task], split: str, warn: Callable[[str], None]
) -> tuple[dict[str, list[list[Prediction]]], list[str]]:
    """The predictions of each state in a file by the task's name, and a note for each torn line."""
    predictions, torn = read_predictions(file)
    states: dict[str, dict[object, list[Prediction]]] = {}
    for one in predictions:
        place = tuple(getattr(one, name) for name in ("split", *PLACE))
        states.setdefault(one.task, {}).setdefault(place, []).append(one)
    names = [task.name for task in tasks]
    for name in names:
        if name not in states:
            raise UsageRefusal(f"{file} holds no answers to {name}", f"it has: {', '.join(states)}")
        for first, *_ in states[name].values():
            if first.split not in (None, split):
                raise UsageRefusal(
                    f"{file} has answers to split {first.split!r} of {name}, not to {split!r}",
                    f"score them with --split {first.split}",
                )
    if others := [name for name in states if name not in names]:
        warn(f"{file} has answers to {', '.join(others)} too, which are left out")
    return {name: [*of_task.values()] for name, of_task in states.items()}, torn


def _matched(
    file: Path, examples: Sequence[Example], answered: Sequence[Prediction], warn: Callable[[str], None]
) -> list[str]:
    """One state's answers to a task in the order of the examples."""
    first = answered[0]
    where = f"{file}: {first.task}" + (f" by adapter {first.adapter[:12]}" if first.adapter else "")
    by_id = {one.id: one for one in answered}
    wanted = {example.id: example for example in examples}
    counts = Counter(one.id for one in answered)
    _refuse_any(
        where, "answered more than once", [*(counts - Counter(by_id.keys()))], "keep one line of each"
    )
    way_on = "name the task, the --split and the --limit that were evaluated"
    _refuse_any(where, "no examples of the task", [key for key in by_id if key not in wanted], way_on)
    _refuse_any(where, "not answered", [key for key in wanted if key not in by_id], way_on)
    other = [key for key, example in wanted.items() if by_id[key].prefix != example.prefix]
    if other:
        warn(f"{where}: {_counted(other)} were answered to another prompt than now")
    return [by_id[key].prediction for key in wanted]


def _refuse_any(where: str, what: str, ids: Sequence[str], way_on: str) -> None:
    if ids:
        raise Refusal(f"{where}: {_counted(ids)}: {what}", way_on)


def _counted(ids: Sequence[str]) -> str:
    named = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
    return f"{len(ids)} id{'s' if len(ids) > 1 else ''} ({named})"


def _unscored(
    file: Path,
    task: Task,
    split: str,
    examples: Sequence[Example],
    one: Prediction,
    labels: dict[str, Any],
    warn: Callable[[str], None],
) -> Result:
    """A result without its score, in the place that a prediction tells."""
    place: dict[str, Any] = {name: getattr(one, name) for name in PLACE} | labels
    if place["stage"] is None:
        place["stage"] = "trained"
        warn(f"{file} does not tell whose answers to {task.name} these are: they count as trained")
    return Result(
        task=task.name,
        metric=task.metric,
        score=0.0,
        n=len(examples),
        split=split,
        examples=examples_fingerprint(examples),
        **place,
    )
