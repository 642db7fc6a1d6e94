"""One task from start to an adapter on disk: locked, resumed, trained, written."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Unpack

from pamctl.adapters import open_adapter
from pamctl.adapters.sources import ADAPTER_FILES
from pamctl.distributed import barrier, decided_by_main, is_main
from pamctl.models.base import load_base
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.training.checkpoints import (
    KEPT,
    STEPS,
    Checkpoints,
    differences,
    folder_of,
    has_checkpoints,
    locked_folder_of,
)
from pamctl.training.configuration import Configuration, Settings, check_settings, resolve_method
from pamctl.training.finished import finished_adapter, write_finished
from pamctl.training.loop import initial_state, train
from pamctl.training.metrics_log import FILE_NAME, MetricsLog
from pamctl.training.preparation import Prepared, prepare
from pamctl.training.reports import Diverged, Progress
from pamctl.training.stop_request import StopRequest
from pamctl.training.tensorboard import TensorBoard
from pamctl.whole_output import refuse_existing

CHECKPOINT_EVERY = 100


def _silent(message: str) -> None:
    """Tell nobody."""


def train_task(
    task: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    global_adapter: str | Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    kept: int = KEPT,
    resume: bool = False,
    force: bool = False,
    tensorboard: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
    report: Callable[[str], None] = _silent,
    warn: Callable[[str], None] = _silent,
    **settings: Unpack[Settings],
) -> Path:
    """Train an adapter on one task and write it to the folder `out`, with its metrics.jsonl.

    While it runs, checkpoints lie in `<out>.checkpoints/`; they are removed when the adapter is written.
    SIGTERM saves one and raises `Preempted`. The same inputs, settings and seed give the same bytes, resumed
    or not. Of several processes that have joined (`pamctl.distributed.join`) each calls this with the same
    arguments; the first one writes, and `out` is in a folder that all of them see.

    Args:
        task: an embedded task's name, a task folder or a `.jsonl`.
        base: the base model; None takes the one that the global adapter names, else the embedded one.
        global_adapter: the adapter of the tasks before; None for a first task.
        checkpoint_every: optimiser steps between two checkpoints.
        kept: how many of the newest checkpoints are kept.
        resume: go on from the newest checkpoint, or start where there is none; a finished output is left.
        force: replace an existing output and ignore checkpoints.
        tensorboard: folder for TensorBoard's event files; None for none.
        on_step: told how far the run is, about twice a second.
        report: told what happens.
        warn: told what to know before trusting the result.
        settings: see `Settings`.

    Raises:
        Refusal: an input or output cannot be used, or the loss is no longer finite.
        UsageRefusal: a setting is out of range.
        Preempted: stopped by SIGTERM, with a checkpoint saved.
    """
    out = Path(out)
    refuse_early(
        out, settings, checkpoint_every, kept, global_adapter is not None, resume=resume, force=force
    )
    with StopRequest() as stop, locked_folder_of(out) as folder:
        if force and is_main():
            shutil.rmtree(folder / STEPS, ignore_errors=True)
        prepared = prepared_run(task, base, global_adapter, settings)
        if out.exists() and not force:
            _refuse_other_result(out, prepared.run.configuration)
            report(f"{out} is finished already")
        else:
            for note in prepared.notes:
                warn(note)
            checkpoints = Checkpoints(folder, prepared.run.configuration.to_json(), checkpoint_every, kept)
            with closing(checkpoints):
                _train(prepared, out, checkpoints, stop, tensorboard, on_step, report, warn, force=force)
        # The folder itself goes with the lock, which another process may be waiting for.
        if is_main():
            shutil.rmtree(folder / STEPS, ignore_errors=True)
    barrier(f"{out} is finished")
    return out


def _train(
    prepared: Prepared,
    out: Path,
    checkpoints: Checkpoints,
    stop: StopRequest,
    tensorboard: Path | None,
    on_step: Callable[[Progress], None] | None,
    report: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    force: bool,
) -> None:
    run = prepared.run
    found = checkpoints.latest(like=initial_state(run.start), warn=warn)
    with ExitStack() as written:
        file = checkpoints.folder / FILE_NAME if is_main() else None
        log = written.enter_context(closing(MetricsLog(file, found.metrics_size if found else 0)))
        board = None
        if tensorboard is not None and is_main():
            board = written.enter_context(closing(TensorBoard(tensorboard, found.step + 1 if found else 1)))
        if found is None:
            log.event("start", run.configuration.to_json())
        else:
            report(f"going on after step {found.step} of {run.configuration.steps}")
        try:
            lora = train(
                run, log, resume_from=found, checkpoints=checkpoints, stop=stop, board=board, on_step=on_step
            )
        except Diverged:
            # The same settings would only lead there again.
            checkpoints.remove()
            raise
        adapter = finished_adapter(prepared, lora, str(out))
        decided_by_main(lambda: write_finished(adapter, log, out, force=force))


def prepared_run(
    task: str | Path, base: str | None, global_adapter: str | Path | None, settings: Settings
) -> Prepared:
    """Read the base, the global adapter and the task, and make a run of them."""
    reference = None if global_adapter is None else open_adapter(global_adapter)
    model = load_base(
        base or (reference.base_model if reference else None),
        settings.get("dtype"),
        quantize=settings.get("quantize"),
        fsdp=settings.get("fsdp"),
    )
    return prepare(open_task(task), model, reference, settings)


def refuse_early(
    out: Path,
    settings: Settings,
    checkpoint_every: int,
    kept: int,
    has_global: bool,
    *,
    resume: bool,
    force: bool,
) -> None:
    """Refuse what can be known before anything large is read."""
    if checkpoint_every < 1:
        raise UsageRefusal(f"--checkpoint-every is {checkpoint_every}", "give a number 1 or more")
    if kept < 1:
        raise UsageRefusal(f"--keep-checkpoints is {kept}", "give a number 1 or more")
    check_settings(settings)
    resolve_method(settings, has_global=has_global)
    if resume and force:
        raise UsageRefusal("--resume goes on and --force starts over", "give one of them")
    refuse_existing(out, force=force or resume, known=ADAPTER_FILES.__contains__)
    if has_checkpoints(out) and not (resume or force):
        raise Refusal(
            f"a run that did not finish left checkpoints in {folder_of(out)}",
            "add --resume to go on from them, or --force to start over",
        )


def _refuse_other_result(out: Path, config: Configuration) -> None:
    provenance = open_adapter(out).provenance
    changes = differences(provenance.parameters if provenance else {}, config.to_json())
    if changes:
        raise Refusal(
            f"{out} was made with another configuration: {'; '.join(changes)}",
            "choose another output, or give --force instead of --resume to replace it",
        )
