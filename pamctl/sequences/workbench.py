"""A base and tasks on which adapters are trained, merged and evaluated, many of them, what is done kept."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pamctl.adapters import Adapter, open_adapter, write_adapter
from pamctl.evaluation.evaluate import evaluate
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import Result
from pamctl.evaluation.scoring import scored, summed_up, unscored
from pamctl.merging import execute, plan_merge
from pamctl.merging.recipe import FILE_NAME, Recipe, recipe_text
from pamctl.models.base import Base
from pamctl.models.lora import adapts_vision, lora_from_adapter
from pamctl.tasks import open_task
from pamctl.tasks.task import TEST, TRAIN, Task
from pamctl.training.batches import EncodedSplit, features_fit, image_features_of, train_split
from pamctl.training.configuration import Settings
from pamctl.training.inheritance import Inheritance
from pamctl.training.methods import Merging
from pamctl.training.preparation import Prepared, prepare
from pamctl.training.reports import Progress
from pamctl.training.stop_request import StopRequest
from pamctl.training.task_run import trained_to


@dataclass
class Workbench:
    """A base and tasks that many sequences share: each split is drawn once and, for adapters that leave the
    vision tower as it is, encoded once, when first asked for.

    Args:
        tasks: by name.
        on_step: told how far the training of a task is.
        warn: told what to know before trusting a result.
    """

    base: Base
    tasks: dict[str, Task]
    on_step: Callable[[Progress], None] | None = None
    warn: Callable[[str], None] = lambda message: None
    _encoded: dict[str, EncodedSplit] = field(default_factory=dict)
    _features: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tasks = {
            name: replace(task, splits={split: list(task.split(split)) for split in (TRAIN, TEST)})
            for name, task in self.tasks.items()
        }

    def trained(
        self,
        tasks: Sequence[str],
        settings: Settings,
        folder: Path,
        *,
        before: Adapter | None = None,
        previous: Path | None = None,
        stop: StopRequest | None = None,
    ) -> Adapter:
        """Return the adapter in `folder`, trained there as `train-task --resume` does it.

        Args:
            tasks: one, or several that are learned at once.
            before: the state after the tasks before; None for a first task.
            previous: what was trained for the task before, where merging made another adapter of it.
        """

        def prepared() -> Prepared:
            last = None if previous is None else open_adapter(previous, routers=True)
            chosen, inheritance = [self.tasks[name] for name in tasks], Inheritance(before, last)
            return prepare(chosen, self.base, inheritance, settings, self._train_split, self._opened)

        trained_to(
            folder,
            prepared,
            stop or StopRequest(),
            opened=self._opened,
            on_step=self.on_step,
            warn=self.warn,
        )
        return open_adapter(folder, routers=True)

    def merged(self, before: Adapter, trained: Adapter, merging: Merging, folder: Path) -> Adapter:
        """Return the two merged, as `pamctl merge` does it, or as kept in `folder`."""
        if not folder.exists():
            parameters = {name: value for name, value in merging.items() if name != "method"}
            recipe = Recipe(merging["method"], space="factor", parameters=parameters)
            plan = plan_merge([before, trained], recipe)
            told = {FILE_NAME: recipe_text(plan.recipe, {})}
            write_adapter(execute(plan).adapter, folder, beside=told)
        return open_adapter(folder)

    def evaluated(self, adapter: Adapter | None, task: str) -> tuple[Result, list[Prediction]]:
        """Return the score of an adapter, or of the base, on a task's test split, and the predictions."""
        lora = {} if adapter is None else lora_from_adapter(adapter, self.base.config)
        features = None if adapts_vision(lora) else self._frozen_features(task)
        predictions = evaluate(self.base, lora, 1.0, self.tasks[task], TEST, features=features)
        result = unscored(self.tasks[task], self.base.fingerprint, adapter, split=TEST)
        return summed_up(result, predictions), predictions

    def scored(self, task: str, answers: Mapping[str, str]) -> list[Prediction]:
        """Return the predictions that answers, by id, to the first examples of a task's test split are."""
        first = self.tasks[task].split(TEST)[: len(answers)]
        answered = [example for example in first if example.id in answers]
        return scored(self.tasks[task], TEST, answered, [answers[example.id] for example in answered])

    def _frozen_features(self, task: str) -> np.ndarray | None:
        """Those of a test split; None where they do not fit in memory, so that images are read anew."""
        examples = self.tasks[task].split(TEST)
        if not features_fit(self.base, len(examples) * self.tasks[task].frames):
            return None
        if task not in self._features:
            self._features[task] = image_features_of(self.base, examples)
        return self._features[task]

    def _opened(self, reference: str) -> Task:
        """The task of a name or path: one of the bench, else from the disk."""
        places = {task.path and os.path.abspath(task.path): task for task in self.tasks.values()}
        return self.tasks.get(reference) or places.get(os.path.abspath(reference)) or open_task(reference)

    def _train_split(self, task: Task) -> EncodedSplit:
        """A task's training split, encoded for a frozen vision tower when first asked for."""
        if task.name not in self._encoded:
            self._encoded[task.name] = train_split(self.base, task)
        return self._encoded[task.name]
