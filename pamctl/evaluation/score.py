"""How one adapter is scored on many tasks: the model loaded once, each score recorded when it is known."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from pamctl.adapters import Adapter, open_adapter
from pamctl.adapters.provenance import Stage
from pamctl.distributed import decided_by_main, is_main
from pamctl.evaluation.evaluate import BATCH_SIZE, evaluate
from pamctl.evaluation.json_lines import refuse_same, refuse_unwritable
from pamctl.evaluation.predictions import predictions_file
from pamctl.evaluation.results import (
    Result,
    append_results,
    held_results,
    is_last_word,
    latest_of_cell,
    scored_as,
)
from pamctl.evaluation.scored_tasks import open_tasks
from pamctl.evaluation.scoring import placed, summed_up, unscored
from pamctl.models.base import fingerprint_of, load_base
from pamctl.models.checkpoint import open_checkpoint
from pamctl.models.lora import lora_from_adapter
from pamctl.refusal import Refusal
from pamctl.tasks import Task
from pamctl.whole_output import refuse_existing


def score_adapter(
    reference: str | None,
    tasks: Sequence[str | Path | Task],
    *,
    base: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    fsdp: int | None = None,
    split: str = "test",
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int | None = None,
    stage: Stage | None = None,
    order: str | None = None,
    run: str | None = None,
    results: Path | None = None,
    predictions: Path | None = None,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    report: Callable[[str], None] = lambda _: None,
    on_examples: Callable[[int, int, str], None] = lambda *_: None,
) -> list[Result]:
    """Score an adapter on tasks, appending each result to a file as soon as it is known.

    A score that `results` holds already is taken from there: of the same adapter, or base where there is
    none, on the same examples, by the same metric, with the same `stage`, `order` and `run`. An adapter that
    several methods made is evaluated once, and recorded for each. What a record does not tell plays no part:
    `dtype`, `quantize`, `max_new_tokens`; a `run` of its own keeps such results apart.

    Args:
        reference: the adapter; None scores the base, zero-shot.
        base: the base model; None takes the one that the adapter names, else the embedded one.
        dtype, quantize, fsdp: how the base is held, see `load_base`.
        stage, order, run: labels of the results; None takes what the adapter's `pamctl.json` tells.
        results: JSON Lines file to append to.
        predictions: JSON Lines file to write, whole once all tasks are done; every task is evaluated for it.
        force: evaluate what `results` holds already too, and append it; replace an existing `predictions`.
        warn: told what to know before trusting a score.
        report: told each score that is taken from `results`.
        on_examples: told (examples done, examples in all, task name) after each batch.

    Raises:
        Refusal: a task, the adapter, the base or a file is at fault, or they do not belong together.
    """
    refuse_same(results, predictions)
    if results:
        refuse_unwritable(results)
    if predictions:
        refuse_existing(predictions, force=force, file=True)
    held = _held(results, warn)
    opened = open_tasks(tasks, split, warn)
    adapter = None if reference is None else _whole(open_adapter(reference, routers=True))
    base = base or (adapter.base_model if adapter else None)
    asked = _Asked(opened, adapter, split, limit, {"stage": stage, "order": order, "run": run})
    known: list[Result | None] = [None] * len(opened)
    if not (force or predictions):
        known = asked.known(base, held)
    for result in filter(None, known):
        report(f"{result.task}: {result.score:.2f} % is in {results} already; --force evaluates it again")
    new = [result for result in filter(None, known) if not is_last_word(result, held)]
    if results and new and is_main():
        append_results(results, new)
    if adapter:
        _tell_of(adapter, stage, warn)
    if all(known):
        return [*filter(None, known)]
    model = load_base(base, dtype, quantize=quantize, fsdp=fsdp)
    for note in model.notes:
        warn(note)
    cells = asked.cells(model.name, model.fingerprint)
    lora = lora_from_adapter(adapter, model.config) if adapter else {}
    lora = jax.device_put(lora, model.devices.replicated)
    sizes = [0 if result else cell.n for result, cell in zip(known, cells, strict=True)]
    how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    writes = is_main()
    with predictions_file(predictions, force=force) if predictions and writes else nullcontext() as file:
        for number, task in enumerate(opened):
            if known[number] is None:
                tell = partial(_tell, on_examples, sum(sizes[:number]), sum(sizes), task.name)
                predicted = evaluate(model, lora, 1.0, task, split, limit, on_examples=tell, **how)
                known[number] = result = summed_up(cells[number], predicted)
                if file:
                    file.add(placed(predicted, result))
                if results and writes and (force or not is_last_word(result, held)):
                    append_results(results, [result])
    return [*filter(None, known)]


@dataclass(frozen=True)
class _Asked:
    """What is to be scored: an adapter, or the base, on some examples of tasks, under some labels."""

    tasks: Sequence[Task]
    adapter: Adapter | None
    split: str
    limit: int | None
    labels: dict[str, Any]

    def cells(self, base: str, fingerprint: str) -> list[Result]:
        """The results to be, one a task, without their scores.

        Args:
            base, fingerprint: of the base.

        Raises:
            Refusal: the adapter was made for another base.
        """
        if self.adapter:
            _refuse_other_base(self.adapter, base, fingerprint)
        given = {name: label for name, label in self.labels.items() if label}
        return [
            replace(unscored(task, fingerprint, self.adapter, split=self.split, limit=self.limit), **given)
            for task in self.tasks
        ]

    def known(self, base: str | None, held: Sequence[Result]) -> list[Result | None]:
        """The results, one a task, of which some others tell the score, alike in every process; else None."""

        def records() -> list[dict[str, Any] | None]:
            if not held:
                return [None] * len(self.tasks)
            checkpoint = open_checkpoint(base)
            cells = self.cells(checkpoint.name, fingerprint_of(checkpoint))
            found = ((cell, latest_of_cell(cell, held)) for cell in cells)
            return [None if told is None else scored_as(cell, told).to_json() for cell, told in found]

        told = decided_by_main(records)
        return [None if record is None else Result.from_json(record) for record in told]


def _held(results: Path | None, warn: Callable[[str], None]) -> list[Result]:
    if results is None:
        return []
    held, notes = held_results(results)
    for note in notes:
        warn(note)
    return held


def _whole(adapter: Adapter) -> Adapter:
    """The adapter, refused before anything is decoded if its weights are not those that it records."""
    _ = adapter.fingerprint
    return adapter


def _tell_of(adapter: Adapter, stage: Stage | None, warn: Callable[[str], None]) -> None:
    for note in adapter.notes:
        warn(note)
    if adapter.provenance is None:
        warn(f"{adapter.name} has no pamctl.json, so it counts as {stage or 'trained'} that tells no tasks")


def _tell(
    on_examples: Callable[[int, int, str], None], before: int, total: int, task: str, done: int
) -> None:
    on_examples(before + done, total, task)


def _refuse_other_base(adapter: Adapter, base: str, fingerprint: str) -> None:
    if adapter.base_fingerprint and adapter.base_fingerprint != fingerprint:
        raise Refusal(
            f"{adapter.name} was made for base {adapter.base_model} ({adapter.base_fingerprint[:12]}), "
            f"not for {base} ({fingerprint[:12]})",
            "name its own base with --base",
        )
