"""What a run would take: steps, time by a few real steps, and disk; nothing of it stays."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamctl.sequences.grid import Unit, plain_settings
from pamctl.sequences.progress import steps_of
from pamctl.sequences.run import Grid
from pamctl.sequences.steps import Merge, Prune, Train
from pamctl.sequences.workbench import Workbench
from pamctl.tasks.task import Task
from pamctl.training.configuration import Settings

STEPS = 4
"""As many as are measured, after as many that are not."""


@dataclass(frozen=True)
class UnitPlan:
    """Trainings, optimiser steps and adapters of one unit."""

    name: str
    trainings: int
    steps: int
    adapters: int


@dataclass(frozen=True)
class RunPlan:
    """What a run would take.

    Attributes:
        seconds_a_step: of plain fine-tuning on the first task, measured here; replay, more terms, other
            tasks and evaluation take their own time.
        adapter_bytes: of one adapter.
    """

    units: tuple[UnitPlan, ...]
    seconds_a_step: float
    adapter_bytes: int

    @property
    def steps(self) -> int:
        return sum(unit.steps for unit in self.units)

    @property
    def seconds(self) -> float:
        return self.steps * self.seconds_a_step

    @property
    def disk_bytes(self) -> int:
        return self.adapter_bytes * sum(unit.adapters for unit in self.units)

    def to_json(self) -> dict[str, Any]:
        return {
            "units": [vars(unit) for unit in self.units],
            "steps": self.steps,
            "seconds_a_step": self.seconds_a_step,
            "seconds": self.seconds,
            "adapter_bytes": self.adapter_bytes,
            "disk_bytes": self.disk_bytes,
            "is_estimate": True,
        }


def plan_run(grid: Grid) -> RunPlan:
    """Check every input of a grid and estimate it; writes only into a temporary folder, which goes.

    Raises:
        Refusal, UsageRefusal: as `run_sequence`.
    """
    tasks = grid.setup.open_tasks()
    plans = tuple(_planned(unit, tasks) for unit in grid.units)
    bench = Workbench(grid.setup.load_base(), tasks)
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = _measured(bench, _plainest(grid.units), Path(folder))
    return RunPlan(plans, seconds, size)


def _planned(unit: Unit, tasks: dict[str, Task]) -> UnitPlan:
    trainings = [step for step in unit.steps if isinstance(step, Train)]
    written = sum(isinstance(step, Train | Prune | Merge) for step in unit.steps)
    steps = sum(steps_of(step.tasks, step.settings, tasks) for step in trainings)
    return UnitPlan(unit.name, len(trainings), steps, written)


def _plainest(units: Sequence[Unit]) -> Train:
    """The first training of one task that begins afresh."""
    return next(
        step for unit in units for step in unit.steps if isinstance(step, Train) and step.before is None
    )


def _measured(bench: Workbench, training: Train, folder: Path) -> tuple[float, int]:
    """Seconds a step and bytes of an adapter: a run that compiles, a short and a longer one."""
    taken = []
    for number, steps in enumerate((STEPS, STEPS, 2 * STEPS)):
        settings: Settings = {**plain_settings(training.settings), "method": "finetune", "steps": steps}
        settings.pop("epochs", None)
        began = time.monotonic()
        bench.trained(training.tasks[:1], settings, folder / str(number))
        taken.append(time.monotonic() - began)
    size = sum(file.stat().st_size for file in (folder / "0").rglob("*") if file.is_file())
    return max(taken[2] - taken[1], 0.0) / STEPS, size
