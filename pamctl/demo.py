"""The whole continual sequence on the embedded tasks, for three methods side by side from one first task."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamctl.adapters import Adapter
from pamctl.demo_commands import COMPARED, RESULTS, first_folder, write_commands
from pamctl.distributed import Devices
from pamctl.evaluation.report import Report, write_report
from pamctl.evaluation.results import Result, append_results, read_results
from pamctl.models.base import Base, load_base
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.sequence import Stage, Workbench, learn
from pamctl.tasks.embedded import ORDERS, embedded_tasks
from pamctl.tasks.task import TRAIN
from pamctl.training.checkpoints import differences
from pamctl.training.configuration import Settings, resolve_recipe
from pamctl.training.methods import METHODS
from pamctl.training.reports import Progress
from pamctl.whole_output import refuse_existing, whole_file

SCHEMA = "pamctl.demo/1"
PLAN, REPORT, COMMANDS = "demo.json", "report", "commands.sh"
FIRST = "first task"
STEPS_OF_AN_EVALUATION = 5
"""About what evaluating one adapter on one task takes, in optimiser steps; for the progress only."""


@dataclass(frozen=True)
class Demo:
    """What a demo found.

    Attributes:
        folder: adapters, results.jsonl, report/ and commands.sh.
        differ_percent: per method, how many of the task adapter's signs differ from the adapter it started
            from, at the end of a task and before merging, averaged over the tasks after the first.
    """

    folder: Path
    report: Report
    differ_percent: dict[str, float]


def run_demo(
    out: str | Path = "pamctl-demo",
    *,
    tasks: int | None = None,
    steps: int | None = None,
    order: int = 1,
    seed: int = 0,
    force: bool = False,
    base: str | None = None,
    on_work: Callable[[int, int, str], None] = lambda done, total, what: None,
    report: Callable[[str], None] = lambda message: None,
) -> Demo:
    """Learn the embedded tasks by each of `COMPARED`; run again in the same folder, it goes on where it was.

    Args:
        out: folder to write; adapters and scores that are there already are kept.
        tasks: only the first so many tasks, at least 2.
        steps: optimiser steps a task; None takes the tasks' own.
        order: 1, 2 or 3, a place in `pamctl.tasks.embedded.ORDERS`.
        force: start over in a folder that an earlier demo wrote.
        base: the base model; None for the embedded one.
        on_work: told work done, work in all, and what is under way.
        report: told each score of interest as it is found.

    Raises:
        Refusal: the folder is not a demo's, or holds one with other options.
        UsageRefusal: an option is out of range.
    """
    out = Path(out)
    names = _chosen_order(order, tasks)
    if steps is not None and steps < 1:
        raise UsageRefusal(f"--steps is {steps}", "give a number 1 or more")
    model = load_base(base, devices=Devices.alone())
    plan = {"tasks": list(names), "steps": steps, "seed": seed, "base": model.fingerprint}
    _open_folder(out, plan, force=force)
    settings: Settings = {"seed": seed} if steps is None else {"seed": seed, "steps": steps}
    write_commands(out / COMMANDS, names, settings, base)
    differ_percent = _Run(out, model, names, settings, on_work, report).learn_all()
    written = write_report([out / RESULTS], out / REPORT, force=True)
    return Demo(out, written, differ_percent)


class _Run:
    """One demo under way: what is known already, and how much of the work is done."""

    def __init__(
        self,
        out: Path,
        base: Base,
        names: tuple[str, ...],
        settings: Settings,
        on_work: Callable[[int, int, str], None],
        report: Callable[[str], None],
    ) -> None:
        self._out, self._names, self._settings = out, names, settings
        self._on_work, self._report = on_work, report
        tasks = embedded_tasks()
        self._bench = Workbench(base, {name: tasks[name] for name in names}, self._trained_to)
        self._results = out / RESULTS
        written = self._results.exists() and self._results.stat().st_size > 0
        known: list[Result] = read_results([self._results])[0] if written else []
        self._known = {(result.adapter, result.task): result for result in known}
        self._done, self._what = 0, ""
        self._total = _work(names, settings)
        self._differ: dict[str, list[float]] = {}

    def learn_all(self) -> dict[str, float]:
        """Zero-shot, the first task once, then every method; returns the `differ_percent` of each."""
        self._begin("zero-shot", "base")
        for name in self._names:
            self._evaluate(None, name)
        task = self._names[0]
        self._begin(FIRST, task)
        first = self._bench.trained([task], self._settings, self._out / first_folder(self._names))
        self._score(Stage(FIRST, task, first, self._names[:2]))
        for method in COMPARED:
            settings: Settings = {**self._settings, "method": method}
            learn(self._bench, self._names, first, settings, self._score, self._out / method, self._begin)
        return {method: sum(found) / len(found) for method, found in self._differ.items()}

    def _begin(self, method: str, task: str) -> None:
        self._what = f"{method}: {task}"
        self._on_work(self._done, self._total, self._what)

    def _trained_to(self, progress: Progress) -> None:
        detail = f"{self._what}, loss {progress.loss:.3f}, {progress.examples_per_second:.0f} examples/s"
        self._on_work(self._done + progress.step, self._total, detail)

    def _score(self, stage: Stage) -> None:
        provenance = stage.adapter.provenance
        assert provenance is not None
        if provenance.stage == "trained":
            self._done += int(provenance.parameters["steps"])
            if provenance.conflicts:
                self._differ.setdefault(stage.method, []).append(
                    provenance.conflicts["overall"]["differ_percent"]
                )
        scores = [self._evaluate(stage.adapter, task) for task in stage.evaluated_on]
        told = ", ".join(f"{result.task} {result.score:.1f}" for result in scores)
        self._report(f"{stage.method}, {provenance.stage} on {stage.task}: {told}")

    def _evaluate(self, adapter: Adapter | None, task: str) -> Result:
        key = (None if adapter is None else adapter.fingerprint, task)
        if key not in self._known:
            self._known[key] = self._bench.evaluated(adapter, task)
            append_results(self._results, [self._known[key]])
        self._done += STEPS_OF_AN_EVALUATION
        self._on_work(self._done, self._total, self._what)
        return self._known[key]


def _work(names: tuple[str, ...], settings: Settings) -> int:
    """All work, in optimiser steps: training, and what evaluating takes."""
    tasks = (embedded_tasks()[name] for name in names)
    steps = [resolve_recipe(settings, task.recipe, len(task.split(TRAIN)))["steps"] for task in tasks]
    states = sum(min(t + 2, len(names)) for t in range(1, len(names)))
    merging = sum(METHODS[method].merge is not None for method in COMPARED)
    cells = len(names) + 2 + len(COMPARED) * states + merging * (len(names) - 1)
    return steps[0] + len(COMPARED) * sum(steps[1:]) + STEPS_OF_AN_EVALUATION * cells


def _chosen_order(order: int, tasks: int | None) -> tuple[str, ...]:
    if not 1 <= order <= len(ORDERS):
        raise UsageRefusal(f"--order is {order}", f"give a number from 1 to {len(ORDERS)}")
    names = ORDERS[order - 1]
    if tasks is not None and not 2 <= tasks <= len(names):
        raise UsageRefusal(f"--tasks is {tasks}", f"give a number from 2 to {len(names)}")
    return names[:tasks]


def _open_folder(out: Path, plan: dict[str, Any], *, force: bool) -> None:
    """Make the folder of a demo, or go on in one with the same plan."""
    refuse_existing(out, force=True)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / PLAN).is_file():
            raise Refusal(f"{out} exists and is no demo's folder", "choose another output with -o")
        changes = differences(
            json.loads((out / PLAN).read_text(encoding="utf-8")), {"schema": SCHEMA, **plan}
        )
        if changes and not force:
            raise Refusal(
                f"{out} holds a demo with other options: {'; '.join(changes)}",
                "choose another output with -o, or add --force to start over",
            )
        if force:
            shutil.rmtree(out)
    if not (out / PLAN).exists():
        with whole_file(out / PLAN) as draft:
            draft.write_text(json.dumps({"schema": SCHEMA, **plan}, indent=2) + "\n", encoding="utf-8")
