"""Working on a unit: each of its steps done, or found done, on a workbench that many units share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pamctl.adapters import Adapter, open_adapter, write_adapter
from pamctl.alignment import align
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import Result
from pamctl.evaluation.scoring import place_of, placed
from pamctl.models.base import Base
from pamctl.refusal import Preempted
from pamctl.sequences.diagnostics import EVERYTHING, diagnostics
from pamctl.sequences.grid import Unit
from pamctl.sequences.progress import STEPS_OF_AN_EVALUATION, work_of
from pamctl.sequences.records import Records
from pamctl.sequences.steps import RESULTS, Diagnose, Merge, Prune, Score, Step, Train
from pamctl.sequences.training_shares import training_shares
from pamctl.sequences.workbench import Workbench
from pamctl.tasks.task import Task
from pamctl.training.checkpoints import InUse
from pamctl.training.reports import Progress
from pamctl.training.stop_request import StopRequest

SECONDS_BETWEEN_TRIES = 0.5
PREDICTIONS_KEPT = 8
"""Of each state on each task, for people to look at."""


class Worker:
    """Does units in a folder.

    Args:
        on_work: told the unit under way, how much of it is done, see `work_of`, and what is going on.
        report: told each score of interest as it is found.
        warn: told what to know before trusting a result.
    """

    def __init__(
        self,
        out: Path,
        base: Base,
        tasks: Mapping[str, Task],
        stop: StopRequest,
        on_work: Callable[[str, int, str], None] = lambda unit, done, what: None,
        report: Callable[[str], None] = lambda message: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._out, self._stop, self._on_work = out, stop, on_work
        self._report, self._warn = report, warn
        self._bench = Workbench(base, dict(tasks), self._trained_to, warn)
        self._records = Records(out, base.fingerprint)
        self._adapters: dict[str, Adapter] = {}
        self._unit, self._done, self._what = "", 0, ""

    def do(self, unit: Unit) -> None:
        """Do what is left of a unit.

        Raises:
            Refusal: a step cannot be done.
            Preempted: stopped by SIGTERM, with a checkpoint saved where a training was under way.
        """
        self._unit, self._done = unit.name, 0
        self._adapters.clear()
        for step in unit.steps:
            if self._stop.requested:
                raise Preempted(f"stopped in {unit.name}, between two steps", "run again to go on")
            self._what = f"{unit.name}: {_words(step)}"
            self._tell(0)
            self._do(step)
            self._done += work_of(step, self._bench.tasks)
        self._tell(0)

    def _do(self, step: Step) -> None:
        match step:
            case Train():
                self._train(step)
            case Prune():
                self._prune(step)
            case Merge(before, trained, by, out):
                pair = self._opened(before), self._opened(trained)
                self._adapters[out] = self._bench.merged(*pair, by, self._out / out)
            case Score():
                self._score(step)
            case Diagnose():
                self._diagnose(step)

    def _train(self, step: Train) -> None:
        """Train, or wait for another run that is at it: cells of several runs may share their first task."""
        told = False
        while True:
            try:
                return self._train_now(step)
            except InUse as busy:
                if self._stop.requested:
                    raise Preempted(f"stopped waiting: {busy.what}", "run again to go on") from busy
                if not told:
                    self._warn(f"{busy.what}: waiting for it")
                told = True
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _train_now(self, step: Train) -> None:
        self._adapters[step.out] = self._bench.trained(
            step.tasks,
            step.settings,
            self._out / step.out,
            before=None if step.before is None else self._opened(step.before),
            previous=None if step.previous is None else self._out / step.previous,
            stop=self._stop,
        )

    def _prune(self, step: Prune) -> None:
        folder = self._out / step.out
        if not folder.exists():
            pruned, _ = align(self._opened(step.trained), self._opened(step.before), EVERYTHING)
            write_adapter(pruned, folder)

    def _score(self, step: Score) -> None:
        adapter = None if step.adapter is None else self._opened(step.adapter)
        scores = []
        for number, task in enumerate(step.tasks, start=1):
            result, predictions = self._result(adapter, task)
            if adapter is not None:
                result = replace(result, order=step.order, run=step.run)
            if step.file == RESULTS:  # before the result, for what has one is not evaluated again
                self._records.add_predictions(placed(predictions, result))
            self._records.add(step.file, result)
            scores.append(f"{task} {result.score:.1f}")
            self._tell(number * STEPS_OF_AN_EVALUATION)
        self._report(f"{step.adapter or 'zero-shot'}: {', '.join(scores)}")

    def _result(self, adapter: Adapter | None, task: str) -> tuple[Result, list[Prediction]]:
        """The score of an adapter and its first predictions, evaluated once for however many cells."""
        place = None if adapter is None else adapter.fingerprint
        known = self._records.score_of(place, task)
        if known is None:
            result, predictions = self._bench.evaluated(adapter, task)
            return result, predictions[:PREDICTIONS_KEPT]
        predictions = self._bench.scored(task, self._records.answers_of(place, task))
        return known if adapter is None else replace(known, **place_of(adapter)), predictions

    def _diagnose(self, step: Diagnose) -> None:
        if self._records.diagnosed(step.stage) is not None:
            return
        before, trained, state = map(self._opened, (step.before, step.trained, step.state))
        task = step.stage[-1]
        scores = {
            "score_before_merging": self._score_on(trained, task),
            "score_pruned": None if step.pruned is None else self._score_on(self._opened(step.pruned), task),
            "score_after": self._score_on(state, task),
        }
        merged = step.pruned is not None
        found = diagnostics(before, trained, state, step.top_p, step.scope, merged=merged)
        told = training_shares(self._out / step.trained)
        self._records.add_diagnosis(step.stage, scores | found | told)

    def _score_on(self, adapter: Adapter, task: str) -> float | None:
        known = self._records.score_of(adapter.fingerprint, task)
        return None if known is None else known.score

    def _opened(self, place: str) -> Adapter:
        if place not in self._adapters:
            self._adapters[place] = open_adapter(self._out / place, routers=True)
        return self._adapters[place]

    def _trained_to(self, progress: Progress) -> None:
        detail = f", loss {progress.loss:.3f}, {progress.examples_per_second:.0f} examples/s"
        self._tell(progress.step, detail)

    def _tell(self, of_the_step: int, detail: str = "") -> None:
        """Tell how much is done: the steps before, and so much of the one under way."""
        self._on_work(self._unit, self._done + of_the_step, self._what + detail)


def _words(step: Step) -> str:
    match step:
        case Train(tasks):
            return f"training {', '.join(tasks)}"
        case Score():
            return "scoring"
        case _:
            return {"Prune": "pruning", "Merge": "merging", "Diagnose": "comparing"}[type(step).__name__]
