"""The contents of a sequence file, checked: orders of tasks, seeds, and systems with their settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pamctl.refusal import UsageRefusal
from pamctl.sequences.keys import LENGTHS, OF_THE_BASE, over
from pamctl.training.configuration import Settings
from pamctl.training.methods import Merging, Method

SCHEMA = "pamctl.sequence/1"


@dataclass(frozen=True)
class System:
    """A method as one row of a comparison: its settings, and the label that tells it from its like.

    Attributes:
        settings: over those of the sequence and of the task.
        merge: in place of the method's own; None for that.
        orders, seeds: where it runs; None for everywhere.
    """

    method: str
    run: str | None = None
    settings: Settings = field(default_factory=lambda: Settings())
    merge: Merging | None = None
    orders: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        """Its folder's name, and what `--only method=` may call it."""
        return f"{self.method}-{self.run}" if self.run else self.method

    def merges_by(self, method: Method) -> Merging | None:
        """How task adapters are merged, the method being resolved; None for not at all."""
        return method.merge if self.merge is None else self.merge

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "run": self.run,
            "settings": dict(self.settings),
            "merge": None if self.merge is None else dict(self.merge),
        }


@dataclass(frozen=True)
class TaskEntry:
    """A task of the file: where it is, and its own settings.

    Attributes:
        path: of its file or folder, from the data folder on; None for the task's name.
    """

    name: str
    path: str | None = None
    settings: Settings = field(default_factory=lambda: Settings())


@dataclass(frozen=True)
class SequenceFile:
    """A sequence file, checked.

    Attributes:
        place: the file, for messages.
        folder: from which a relative `data` starts; None for a shipped file.
        data: the folder from which paths of tasks start, as written.
    """

    place: str
    folder: Path | None
    orders: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    tasks: Mapping[str, TaskEntry]
    systems: tuple[System, ...]
    settings: Settings
    base: str | None = None
    data: str | None = None

    @property
    def held(self) -> Settings:
        """How the base is held, once for all cells."""
        held = {name: value for name, value in self.settings.items() if name in OF_THE_BASE}
        return cast(Settings, held)

    def settings_of(self, system: System, tasks: Sequence[str]) -> Settings:
        """What `train-task` is told beside method and seed: of all, over it of the task, of the method.

        Raises:
            UsageRefusal: tasks learned at once have settings of their own that differ.
        """
        return over(self._of_tasks(system, tasks), system.settings)

    def _of_tasks(self, system: System, tasks: Sequence[str]) -> Settings:
        """What the file says of some tasks, without what the system says for itself."""
        each = [over(self.settings, self.tasks[name].settings) for name in tasks]
        said = {*system.settings}
        if said & LENGTHS:
            said |= LENGTHS
        for name in sorted({name for settings in each for name in settings} - said):
            if len({repr(settings.get(name)) for settings in each}) > 1:
                raise UsageRefusal(
                    f"{self.place}: {system.method} learns all tasks at once, and their {name} differ",
                    f"give {name} in its [[methods]] entry",
                )
        return cast(Settings, {name: value for name, value in each[0].items() if name not in said})

    def to_json(self) -> dict[str, Any]:
        """What decides the numbers of the cells, and nothing of the machine."""
        return {
            "schema": SCHEMA,
            "base": self.base,
            "settings": dict(self.settings),
            "tasks": {name: dict(entry.settings) for name, entry in self.tasks.items()},
            "orders": {name: list(tasks) for name, tasks in self.orders.items()},
            "methods": {system.label: system.to_json() for system in self.systems},
        }
