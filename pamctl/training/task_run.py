"""One run from start to an adapter on disk: locked, resumed, trained, written."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Unpack

from pamctl.adapters import open_adapter
from pamctl.adapters.sources import ADAPTER_FILES
from pamctl.distributed import barrier, decided_by_main, is_main
from pamctl.models.base import load_base
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import Task
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
from pamctl.training.finished import finished, write_finished
from pamctl.training.inheritance import inherited
from pamctl.training.loop import State, initial_state, train
from pamctl.training.methods import method_named
from pamctl.training.metrics_log import FILE_NAME, SCHEMA, MetricsLog
from pamctl.training.preparation import Prepared, prepare, refuse_several
from pamctl.training.reports import Diverged, Progress
from pamctl.training.stop_request import StopRequest
from pamctl.training.tensorboard import TensorBoard
from pamctl.whole_output import refuse_existing

CHECKPOINT_EVERY = 100

Reference = str | Path


def _silent(message: str) -> None:
    """Tell nobody."""


def train_task(
    task: Reference | Sequence[Reference],
    out: Reference,
    *,
    base: str | None = None,
    global_adapter: Reference | None = None,
    previous: Reference | None = None,
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
        task: an embedded task's name, a task folder or a `.jsonl`; several of them for a method that learns
            them at once.
        base: the base model; None takes the one that the global adapter names, else the embedded one.
        global_adapter: the adapter of the tasks before; None for a first task.
        previous: what this wrote for the task before, where that is not the global adapter: what a method
            goes on from that merges, and its examples for replay.
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
    out, tasks = Path(out), references_of(task)
    refuse_early(
        tasks,
        out,
        settings,
        checkpoint_every,
        kept,
        global_adapter is not None,
        resume=resume,
        force=force,
    )
    with StopRequest() as stop:
        trained_to(
            out,
            lambda: prepared_run(tasks, base, global_adapter, previous, settings),
            stop,
            checkpoint_every=checkpoint_every,
            kept=kept,
            force=force,
            tensorboard=tensorboard,
            on_step=on_step,
            report=report,
            warn=warn,
        )
    return out


def trained_to(
    out: Path,
    prepared_run: Callable[[], Prepared],
    stop: StopRequest,
    *,
    opened: Callable[[str], Task] = open_task,
    checkpoint_every: int = CHECKPOINT_EVERY,
    kept: int = KEPT,
    force: bool = False,
    tensorboard: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
    report: Callable[[str], None] = _silent,
    warn: Callable[[str], None] = _silent,
) -> None:
    """Train a prepared run into a folder, from its newest checkpoint on; a finished one is left alone.

    Args:
        prepared_run: makes the run, once the output is held against other processes.
        opened: gives the task of a name or path.

    Other arguments and errors are those of `train_task`.
    """
    with locked_folder_of(out) as folder:
        if force and is_main():
            shutil.rmtree(folder / STEPS, ignore_errors=True)
        prepared = prepared_run()
        if out.exists() and not force:
            _refuse_other_result(out, prepared.run.configuration)
            report(f"{out} is finished already")
        else:
            for note in prepared.notes:
                warn(note)
            checkpoints = Checkpoints(folder, prepared.run.configuration.to_json(), checkpoint_every, kept)
            with closing(checkpoints):
                log, state = _trained(prepared, checkpoints, stop, tensorboard, on_step, report, warn)
                done = finished(prepared, state, str(out))
                decided_by_main(lambda: write_finished(done, prepared, log, out, opened, force=force))
        # The folder itself goes with the lock, which another process may be waiting for.
        if is_main():
            shutil.rmtree(folder / STEPS, ignore_errors=True)
    barrier(f"{out} is finished")


def _trained(
    prepared: Prepared,
    checkpoints: Checkpoints,
    stop: StopRequest,
    tensorboard: Path | None,
    on_step: Callable[[Progress], None] | None,
    report: Callable[[str], None],
    warn: Callable[[str], None],
) -> tuple[MetricsLog, State]:
    """The last state of a run, gone on with from its newest checkpoint, and the log of all its events."""
    run = prepared.run
    found = checkpoints.latest(like=initial_state(run.start, run.slow), warn=warn)
    with ExitStack() as written:
        file = checkpoints.folder / FILE_NAME if is_main() else None
        log = written.enter_context(closing(MetricsLog(file, found.metrics_size if found else 0)))
        board = None
        if tensorboard is not None and is_main():
            board = written.enter_context(closing(TensorBoard(tensorboard, found.step + 1 if found else 1)))
        if found is None:
            log.event("start", {"schema": SCHEMA, **run.configuration.to_json()})
        else:
            report(f"going on after step {found.step} of {run.configuration.steps}")
        try:
            state = train(
                run,
                log,
                resume_from=found,
                checkpoints=checkpoints,
                stop=stop,
                board=board,
                on_step=on_step,
                warn=warn,
            )
        except Diverged:
            # The same settings would only lead there again.
            checkpoints.remove()
            raise
    return log, state


def references_of(task: Reference | Sequence[Reference]) -> tuple[str, ...]:
    """Return one or several tasks as a tuple."""
    return (str(task),) if isinstance(task, str | Path) else tuple(map(str, task))


def prepared_run(
    tasks: Sequence[str],
    base: str | None,
    global_adapter: Reference | None,
    previous: Reference | None,
    settings: Settings,
) -> Prepared:
    """Read the base, the adapters before and the tasks, and make a run of them."""
    before = inherited(global_adapter, previous)
    state = before.global_adapter
    model = load_base(
        base or (state.base_model if state else None),
        settings.get("dtype"),
        quantize=settings.get("quantize"),
        fsdp=settings.get("fsdp"),
    )
    return prepare([open_task(task) for task in tasks], model, before, settings)


def refuse_early(
    tasks: Sequence[str],
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
    if not tasks:
        raise UsageRefusal("no task is given", "name an embedded task, a task folder or a .jsonl")
    if checkpoint_every < 1:
        raise UsageRefusal(f"--checkpoint-every is {checkpoint_every}", "give a number 1 or more")
    if kept < 1:
        raise UsageRefusal(f"--keep-checkpoints is {kept}", "give a number 1 or more")
    check_settings(settings)
    refuse_several(tasks, method_named(settings.get("method", "pam")))
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
    provenance = open_adapter(out, routers=True).provenance
    changes = differences(provenance.parameters if provenance else {}, config.to_json())
    if changes:
        raise Refusal(
            f"{out} was made with another configuration: {'; '.join(changes)}",
            "choose another output, or give --force instead of --resume to replace it",
        )
