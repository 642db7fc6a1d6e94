"""How much of a run is done, in optimiser steps, evaluations counted as if they were some."""

from collections.abc import Callable, Mapping, Sequence

from pamctl.sequences.grid import Unit
from pamctl.sequences.steps import Score, Step, Train
from pamctl.tasks.task import TRAIN, Task
from pamctl.training.configuration import Settings, resolve_recipe

STEPS_OF_AN_EVALUATION = 5
"""About what evaluating one adapter on one task takes; for the progress only."""


class WorkDone:
    """Adds up what is done of several units.

    Args:
        on_work: told work done, work in all, and what is under way.
    """

    def __init__(
        self, units: Sequence[Unit], tasks: Mapping[str, Task], on_work: Callable[[int, int, str], None]
    ) -> None:
        self._total = sum(work_of(step, tasks) for unit in units for step in unit.steps)
        self._done: dict[str, int] = {}
        self._on_work = on_work

    def add(self, unit: str, done: int, what: str) -> None:
        """So much of a unit is done by now."""
        self._done[unit] = done
        self._on_work(sum(self._done.values()), self._total, what)


def work_of(step: Step, tasks: Mapping[str, Task]) -> int:
    """How much work a step is, in optimiser steps."""
    if isinstance(step, Train):
        return steps_of(step.tasks, step.settings, tasks)
    return STEPS_OF_AN_EVALUATION * len(step.tasks) if isinstance(step, Score) else 0


def steps_of(names: Sequence[str], settings: Settings, tasks: Mapping[str, Task]) -> int:
    """The optimiser steps of a training; of several tasks at once, those of each by itself together."""
    if len(names) > 1 and settings.get("steps"):
        return int(settings["steps"] or 0)
    recipes = [resolve_recipe(settings, tasks[name].recipe, len(tasks[name].split(TRAIN))) for name in names]
    return sum(int(recipe["steps"]) for recipe in recipes)
