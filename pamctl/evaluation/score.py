"""How one adapter is scored on many tasks: the model loaded once, each score recorded when it is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from pamctl.adapters import Adapter, open_adapter
from pamctl.adapters.provenance import Stage
from pamctl.distributed import is_main
from pamctl.evaluation.answers import metric_named
from pamctl.evaluation.evaluate import BATCH_SIZE, evaluate
from pamctl.evaluation.json_lines import refuse_unwritable
from pamctl.evaluation.predictions import Prediction, predictions_file
from pamctl.evaluation.results import Result, append_results
from pamctl.evaluation.scoring import placed, result_of
from pamctl.models.base import Base, load_base
from pamctl.models.lora import lora_from_adapter
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Task, open_task
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
    on_examples: Callable[[int, int, str], None] = lambda *_: None,
) -> list[Result]:
    """Score an adapter on tasks, appending each result to a file as soon as it is known.

    Args:
        reference: the adapter; None scores the base, zero-shot.
        base: the base model; None takes the one that the adapter names, else the embedded one.
        dtype, quantize, fsdp: how the base is held, see `load_base`.
        stage, order, run: labels of the results; None takes what the adapter's `pamctl.json` tells.
        results: JSON Lines file to append to.
        predictions: JSON Lines file to write once all tasks are done.
        force: replace an existing `predictions`.
        warn: told what to know before trusting a score.
        on_examples: told (examples done, examples in all, task name) after each batch.

    Raises:
        Refusal: a task, the adapter, the base or a file is at fault, or they do not belong together.
    """
    if results:
        refuse_unwritable(results)
    if predictions:
        refuse_existing(predictions, force=force, file=True)
    opened = [task if isinstance(task, Task) else open_task(task) for task in tasks]
    _check_tasks(opened, split, warn)
    adapter = None if reference is None else _whole(open_adapter(reference, routers=True))
    model = load_base(base or (adapter.base_model if adapter else None), dtype, quantize=quantize, fsdp=fsdp)
    for note in model.notes:
        warn(note)
    if adapter:
        for note in adapter.notes:
            warn(note)
        _check_adapter(adapter, model, stage, warn)
    lora = lora_from_adapter(adapter, model.config) if adapter else {}
    lora = jax.device_put(lora, model.devices.replicated)
    sizes = [len(task.split(split)[:limit]) for task in opened]
    scored: list[Result] = []
    answered: list[Prediction] = []
    for number, task in enumerate(opened):
        tell = partial(_tell, on_examples, sum(sizes[:number]), sum(sizes), task.name)
        predicted = evaluate(
            model, lora, 1.0, task, split, limit, max_new_tokens, batch_size=batch_size, on_examples=tell
        )
        result = result_of(predicted, task, model.fingerprint, adapter, split=split)
        result = replace(result, stage=stage or result.stage, order=order or result.order)
        scored.append(replace(result, run=run or result.run))
        answered += placed(predicted, scored[-1])
        if results and is_main():
            append_results(results, scored[-1:])
    if predictions and is_main():
        with predictions_file(predictions, force=force) as file:
            file.add(answered)
    return scored


def _whole(adapter: Adapter) -> Adapter:
    """The adapter, refused before anything is decoded if its weights are not those that it records."""
    _ = adapter.fingerprint
    return adapter


def _tell(
    on_examples: Callable[[int, int, str], None], before: int, total: int, task: str, done: int
) -> None:
    on_examples(before + done, total, task)


def _check_tasks(tasks: Sequence[Task], split: str, warn: Callable[[str], None]) -> None:
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageRefusal(
            f"two tasks are named {twice}", "name each task once; a JSONL task is named after its file"
        )
    for task in tasks:
        task.split(split)
        metric_named(task.metric)
        for note in task.notes:
            warn(note)


def _check_adapter(adapter: Adapter, base: Base, stage: Stage | None, warn: Callable[[str], None]) -> None:
    if adapter.base_fingerprint and adapter.base_fingerprint != base.fingerprint:
        raise Refusal(
            f"{adapter.name} was made for base {adapter.base_model} ({adapter.base_fingerprint[:12]}), "
            f"not for {base.name} ({base.fingerprint[:12]})",
            "name its own base with --base",
        )
    if adapter.provenance is None:
        warn(f"{adapter.name} has no pamctl.json, so it counts as {stage or 'trained'} that tells no tasks")
