"""One task from start to an adapter on disk: planned, locked, resumed, trained, written."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np

from pamctl.adapters import open_adapter
from pamctl.adapters.sources import ADAPTER_FILES
from pamctl.models.base import load_base
from pamctl.models.trees import Tree
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
from pamctl.whole_output import refuse_existing

CHECKPOINT_EVERY = 100


def _silent(message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Plan:
    """What `train_task` would do.

    Attributes:
        tasks: learned so far, this one included.
        parameters, trained_parameters: numbers in the base, and in the adapter.
        notes: what to know before starting.
    """

    output: Path
    configuration: Configuration
    examples: int
    parameters: int
    trained_parameters: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        return {
            "output": str(self.output),
            "files": ["adapter_config.json", "adapter_model.safetensors", "pamctl.json", FILE_NAME],
            "configuration": self.configuration.to_json(),
            "examples": self.examples,
            "parameters": self.parameters,
            "trained_parameters": self.trained_parameters,
            "notes": list(self.notes),
        }


def plan_task(
    task: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    global_adapter: str | Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    kept: int = KEPT,
    resume: bool = False,
    force: bool = False,
    **settings: Unpack[Settings],
) -> Plan:
    """Resolve every setting and check every input as `train_task` does, and write nothing.

    Arguments and errors are those of `train_task`.
    """
    out = Path(out)
    _refuse_early(
        out, settings, checkpoint_every, kept, global_adapter is not None, resume=resume, force=force
    )
    prepared = _prepare(task, base, global_adapter, settings)
    run = prepared.run
    return Plan(
        output=out,
        configuration=run.configuration,
        examples=len(run.split),
        parameters=_size(run.base.parameters),
        trained_parameters=_size(run.start),
        notes=prepared.notes,
    )


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
    on_step: Callable[[Progress], None] | None = None,
    report: Callable[[str], None] = _silent,
    warn: Callable[[str], None] = _silent,
    **settings: Unpack[Settings],
) -> Path:
    """Train an adapter on one task and write it to the folder `out`, with its metrics.jsonl.

    While it runs, checkpoints lie in `<out>.checkpoints/`; they are removed when the adapter is written.
    SIGTERM saves one and raises `Preempted`. The same inputs, settings and seed give the same bytes, resumed
    or not.

    Args:
        task: an embedded task's name, a task folder or a `.jsonl`.
        base: the base model; None takes the one that the global adapter names, else the embedded one.
        global_adapter: the adapter of the tasks before; None for a first task.
        checkpoint_every: optimiser steps between two checkpoints.
        kept: how many of the newest checkpoints are kept.
        resume: go on from the newest checkpoint, or start where there is none; a finished output is left.
        force: replace an existing output and ignore checkpoints.
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
    _refuse_early(
        out, settings, checkpoint_every, kept, global_adapter is not None, resume=resume, force=force
    )
    with StopRequest() as stop, locked_folder_of(out) as folder:
        if force:
            shutil.rmtree(folder / STEPS, ignore_errors=True)
        prepared = _prepare(task, base, global_adapter, settings)
        if out.exists() and not force:
            _refuse_other_result(out, prepared.run.configuration)
            report(f"{out} is finished already")
        else:
            for note in prepared.notes:
                warn(note)
            checkpoints = Checkpoints(folder, prepared.run.configuration.to_json(), checkpoint_every, kept)
            with closing(checkpoints):
                _train(prepared, out, checkpoints, stop, on_step, report, warn, force=force)
        # The folder itself goes with the lock, which another process may be waiting for.
        shutil.rmtree(folder / STEPS, ignore_errors=True)
    return out


def _train(
    prepared: Prepared,
    out: Path,
    checkpoints: Checkpoints,
    stop: StopRequest,
    on_step: Callable[[Progress], None] | None,
    report: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    force: bool,
) -> None:
    run = prepared.run
    found = checkpoints.latest(like=initial_state(run.start), warn=warn)
    with closing(MetricsLog(checkpoints.folder / FILE_NAME, found.metrics_size if found else 0)) as log:
        if found is None:
            log.event("start", run.configuration.to_json())
        else:
            report(f"going on after step {found.step} of {run.configuration.steps}")
        try:
            lora = train(run, log, resume_from=found, checkpoints=checkpoints, stop=stop, on_step=on_step)
        except Diverged:
            # The same settings would only lead there again.
            checkpoints.remove()
            raise
        write_finished(finished_adapter(prepared, lora, str(out)), log, out, force=force)


def _prepare(
    task: str | Path, base: str | None, global_adapter: str | Path | None, settings: Settings
) -> Prepared:
    reference = None if global_adapter is None else open_adapter(global_adapter)
    model = load_base(base or (reference.base_model if reference else None))
    return prepare(open_task(task), model, reference, settings)


def _refuse_early(
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


def _size(tree: Tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
