"""What a process needs to work on units: the base, the tasks and the folder, told in words it can be sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pamctl.evaluation.answers import metric_named
from pamctl.models.base import Base, load_base
from pamctl.refusal import UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import TEST, TRAIN, Task
from pamctl.training.configuration import Settings


@dataclass(frozen=True)
class Setup:
    """The inputs of every unit.

    Attributes:
        out: folder of the run.
        base: the base model; None for the embedded one.
        held: how it is held.
        tasks: embedded names or paths, by name.
    """

    out: Path
    base: str | None
    held: Settings
    tasks: Mapping[str, str]

    def load_base(self) -> Base:
        """Load the base, on all devices."""
        return load_base(
            self.base,
            self.held.get("dtype"),
            quantize=self.held.get("quantize"),
            fsdp=self.held.get("fsdp"),
        )

    def open_tasks(self) -> dict[str, Task]:
        """Open every task.

        Raises:
            Refusal: a task is at fault.
            UsageRefusal: its own name is another, or it lacks a split.
        """
        return {name: _opened(name, reference) for name, reference in self.tasks.items()}


def _opened(name: str, reference: str) -> Task:
    task = open_task(reference)
    if task.name != name:
        raise UsageRefusal(
            f"the task at {reference} is called {task.name}, not {name}",
            f"call it {task.name} in the sequence file: results and adapters know it by that name",
        )
    for split in (TRAIN, TEST):
        task.split(split)
    metric_named(task.metric)
    return task
