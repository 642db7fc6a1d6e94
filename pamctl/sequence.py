"""A sequence of tasks learned by one method: each task trained, merged and evaluated, what is done kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pamctl.adapters import Adapter, open_adapter, save_adapter
from pamctl.evaluation.evaluate import evaluate, result_of
from pamctl.evaluation.results import Result
from pamctl.merging import merge
from pamctl.models.base import Base
from pamctl.models.lora import adapts_vision, lora_from_adapter
from pamctl.refusal import Refusal
from pamctl.tasks.task import Task
from pamctl.training.batches import EncodedSplit, image_features_of
from pamctl.training.checkpoints import differences
from pamctl.training.configuration import Settings
from pamctl.training.finished import finished_adapter, write_finished
from pamctl.training.loop import train
from pamctl.training.methods import method_named
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import TRAIN, prepare
from pamctl.training.reports import Progress
from pamctl.whole_output import whole_folder

TEST = "test"


@dataclass
class Workbench:
    """A base and tasks that many sequences share: each split is drawn once and, for adapters that leave the
    vision tower as it is, encoded once, when first asked for.

    Args:
        tasks: by name.
        on_step: told how far the training of a task is.
    """

    base: Base
    tasks: dict[str, Task]
    on_step: Callable[[Progress], None] | None = None
    _train: dict[str, EncodedSplit] = field(default_factory=dict)
    _features: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tasks = {
            name: replace(task, splits={split: list(task.split(split)) for split in (TRAIN, TEST)})
            for name, task in self.tasks.items()
        }

    def trained(
        self, task: str, before: Adapter | None, settings: Settings, folder: Path | None = None
    ) -> Adapter:
        """Return the task adapter, trained from `before` as `train_task` trains it, or kept in `folder`."""
        prepared = prepare(self.tasks[task], self.base, before, settings, self._train.get(task))
        if not adapts_vision(prepared.run.start):
            self._train[task] = prepared.run.split
        config = prepared.run.configuration
        if folder is not None and folder.exists():
            kept = open_adapter(folder)
            if changes := differences(
                kept.provenance.parameters if kept.provenance else {}, config.to_json()
            ):
                raise Refusal(
                    f"{folder} was made with another configuration: {'; '.join(changes)}",
                    "choose another output, or add --force to start over",
                )
            return kept
        log = MetricsLog()
        log.event("start", config.to_json())
        lora = train(prepared.run, log, on_step=self.on_step)
        adapter = finished_adapter(prepared, lora, str(folder or task))
        if folder is not None:
            write_finished(adapter, log, folder)
        return adapter

    def merged(self, before: Adapter, trained: Adapter, method: str, folder: Path | None = None) -> Adapter:
        """Return the two merged, as `pamctl merge` does it, or as kept in `folder`."""
        if folder is not None and folder.exists():
            return open_adapter(folder)
        lazy = merge([before, trained], method)
        adapter = Adapter(dict(lazy.modules), lazy.provenance, lazy.base_model, str(folder or method))
        if folder is not None:
            with whole_folder(folder) as draft:
                save_adapter(adapter, draft)
        return adapter

    def evaluated(self, adapter: Adapter | None, task: str) -> Result:
        """Return the score of an adapter, or of the base, on a task's test split."""
        lora = {} if adapter is None else lora_from_adapter(adapter, self.base.config)
        features = None if adapts_vision(lora) else self._frozen_features(task)
        predictions = evaluate(self.base, lora, 1.0, self.tasks[task], TEST, features=features)
        return result_of(predictions, self.tasks[task], self.base, adapter, split=TEST)

    def _frozen_features(self, task: str) -> np.ndarray:
        if task not in self._features:
            self._features[task] = image_features_of(self.base, self.tasks[task].split(TEST))
        return self._features[task]


@dataclass(frozen=True)
class Stage:
    """One adapter of a sequence and the tasks it is evaluated on."""

    method: str
    task: str
    adapter: Adapter
    evaluated_on: tuple[str, ...]


def learn(
    bench: Workbench,
    order: Sequence[str],
    first: Adapter,
    settings: Settings,
    on_stage: Callable[[Stage], None],
    folder: Path | None = None,
    on_start: Callable[[str, str], None] = lambda method, task: None,
) -> None:
    """Learn the tasks of `order` after the first one.

    Args:
        first: the adapter of the first task, which is the same for every method.
        settings: the method and all that it leaves open, for every task alike.
        on_stage: told each adapter as soon as it is there: before merging, on its own task; then as the state
            after the task, on the tasks so far and the next one.
        folder: where adapters are written as `<t>-<task>/trained` and `/merged`, and kept ones are found.
        on_start: told method and task before training.
    """
    method = method_named(settings.get("method", "pam"))
    state = first
    for t, task in enumerate(order[1:], start=1):
        on_start(method.name, task)
        place = None if folder is None else folder / f"{t + 1}-{task}"
        trained = bench.trained(task, state, settings, place and place / "trained")
        so_far_and_next = tuple(order[: t + 2])
        if method.merge is None:
            state = trained
        else:
            on_stage(Stage(method.name, task, trained, (task,)))
            state = bench.merged(state, trained, method.merge, place and place / "merged")
        on_stage(Stage(method.name, task, state, so_far_and_next))
