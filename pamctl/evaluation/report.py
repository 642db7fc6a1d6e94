"""What a report is, and the folder that holds one: text, numbers, a web page and the figures they show."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pamctl.evaluation.baseline import Changes, changes_of
from pamctl.evaluation.collection import collection_paused
from pamctl.evaluation.conflicts import Diagnosis, LayerConflicts, conflicts_of
from pamctl.evaluation.counted import counted
from pamctl.evaluation.curves import FIRST, Curve
from pamctl.evaluation.figures import NAMES, write_figures
from pamctl.evaluation.markdown import markdown_of
from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.metrics import FWT, FWT_VARIANTS
from pamctl.evaluation.metrics_json import metrics_json
from pamctl.evaluation.page import page_of
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.report_inputs import Inputs, read_inputs
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import Comparison, Paired, comparisons_of, in_order_of_methods
from pamctl.evaluation.task_pictures import TaskPictures
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Task
from pamctl.whole_output import refuse_existing, whole_folder

SCHEMA = "pamctl.metrics/1"
REFERENCE = "average"
"""The system that others are held against where none is asked for: PAM without its alignment."""
PAGE = "index.html"
_FILES = re.compile(
    rf"index\.html|report\.md|metrics\.json|matrix\.csv|({'|'.join(NAMES)})(-\d+)?\.(png|svg)"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a formula of a spreadsheet begins with."""
CSV_FIELDS = ("method", "run", "order", "seed", "state", "learned", "after", "task", "score")


@dataclass(frozen=True)
class Report:
    """What a set of results says: sequences compared, results outside any sequence, and what to know.

    Attributes:
        against: the system that paired differences were asked against.
        fwt: the variant of FWT in its tables.
        predictions: what was answered to single examples, with where in a sequence.
        conflicts: by layer, one for each system that tells them.
        curves: of every training whose log was read.
        baseline: another run that this one is compared with.
    """

    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    against: str | None = None
    fwt: str = FWT
    predictions: tuple[Prediction, ...] = ()
    conflicts: tuple[LayerConflicts, ...] = ()
    curves: tuple[Curve, ...] = ()
    baseline: "Report | None" = None

    @property
    def single(self) -> list[Result]:
        """Results that are in no sequence; those of the base are here only where no sequence is."""
        return [
            result
            for result in self.results
            if not (result.tasks or (result.stage == "base" and self.comparisons))
        ]

    @cached_property
    def checked(self) -> tuple[int, int]:
        """How many matrices satisfy `IDENTITY`, of how many; reading refuses one that breaks it."""
        gaps = [matrix.identity_gap for comparison in self.comparisons for matrix in comparison.matrices]
        return sum(gap is not None for gap in gaps), len(gaps)

    def against_in(self, comparison: Comparison) -> str | None:
        """The system that the others of a comparison are held against, None for every two."""
        return self.against or (REFERENCE if REFERENCE in comparison.systems else None)

    def pairs(self, comparison: Comparison) -> list[Paired]:
        """The paired differences that a report tells of a comparison."""
        return list(comparison.pairs(self.against_in(comparison)))

    def changes(self, comparison: Comparison) -> Changes | None:
        """What changed in a comparison since the baseline; None where that has none over the same tasks."""
        return self._changes.get(frozenset(comparison.tasks))

    @cached_property
    def _changes(self) -> dict[frozenset[str], Changes]:
        before = self.baseline.comparisons if self.baseline else ()
        then = {frozenset(comparison.tasks): comparison for comparison in before}
        now = {frozenset(comparison.tasks): comparison for comparison in self.comparisons}
        return {tasks: changes_of(now[tasks], then[tasks]) for tasks in now if tasks in then}


def report_of(
    paths: Sequence[Path],
    split: str = "test",
    against: str | None = None,
    *,
    fwt: str = FWT,
    baseline: Sequence[Path] = (),
) -> Report:
    """Read results and what belongs to them, and compare what they tell of one split.

    Args:
        paths: JSON Lines files of results, predictions, diagnostics or training, and folders of runs.
        against: the system that the others are held against; `average` if it is there, else every two.
        fwt: the variant of FWT in the tables, see `FWT_VARIANTS`.
        baseline: the same of another run, to compare this one with.

    Raises:
        Refusal: a file or line is at fault, no result is of this split, or no system is called `against`.
    """
    if fwt not in FWT_VARIANTS:
        raise UsageRefusal(f"no FWT is called {fwt!r}", f"choose one of: {', '.join(FWT_VARIANTS)}")
    inputs = read_inputs(paths)
    chosen = _of_split(inputs, split)
    left_out = len(inputs.results) - len(chosen)
    others = [f"left out: {counted(left_out, 'result')} of other splits"] if left_out else []
    matrices, notes = matrices_of(chosen, fwt)
    comparisons = tuple(comparisons_of(matrices, fwt))
    systems = dict.fromkeys(system for comparison in comparisons for system in comparison.systems)
    if against is not None and against not in systems:
        raise UsageRefusal(f"no system is called {against!r}", f"choose one of: {', '.join(systems)}")
    labels = {f"{matrix.method}-{matrix.run}": matrix.system for matrix in matrices if matrix.run}
    before = report_of(baseline, split, fwt=fwt) if baseline else None
    return Report(
        results=chosen,
        comparisons=comparisons,
        notes=(
            *inputs.notes,
            *others,
            *notes,
            *_repeated(comparisons),
            *_alike(comparisons),
            *_not_comparable(comparisons, before),
        ),
        against=against,
        fwt=fwt,
        predictions=tuple(answer for answer in inputs.predictions if answer.split in (None, split)),
        conflicts=_conflicts(inputs.diagnoses, labels),
        curves=_curves(inputs.curves, labels),
        baseline=before,
    )


def write_report(
    paths: Sequence[Path],
    folder: Path,
    *,
    split: str = "test",
    against: str | None = None,
    fwt: str = FWT,
    baseline: Sequence[Path] = (),
    tasks: Sequence[str | Path | Task] = (),
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> Report:
    """Compare results and write the report into a new folder, complete or not at all.

    Other arguments and errors as for `report_of`.

    Args:
        tasks: those whose examples' pictures are shown, opened or where they are, beside the embedded ones.
        warn: told of what the page lacks.
    """
    refuse_existing(folder, force=force, known=_FILES.fullmatch)
    pictures = TaskPictures(tasks, split)
    with collection_paused():
        report = report_of(paths, split, against, fwt=fwt, baseline=baseline)
        with whole_folder(folder, force=force, known=_FILES.fullmatch) as draft:
            _write_all(report, pictures, draft)
    if unknown := ", ".join(pictures.unknown):
        warn(f"the page has no pictures of {unknown}: tell where they are with --task")
    return report


def _write_all(report: Report, pictures: TaskPictures, folder: Path) -> None:
    figures = write_figures(report, folder)
    _write(folder / PAGE, page_of(report, pictures))
    _write(folder / "report.md", "\n".join(markdown_of(report, figures)))
    numbers = {"schema": SCHEMA, **metrics_json(report)}
    _write(folder / "metrics.json", json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    with (folder / "matrix.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_FIELDS)
        writer.writerows(row for comparison in report.comparisons for row in _csv_rows(comparison))


def _write(path: Path, text: str) -> None:
    path.write_text(f"{text}\n", encoding="utf-8")


def _of_split(inputs: Inputs, split: str) -> tuple[Result, ...]:
    chosen = tuple(result for result in inputs.results if result.split == split)
    if not chosen:
        found = ", ".join(sorted({result.split for result in inputs.results}))
        raise Refusal(f"no result is of split {split!r}", f"choose one with --split; the files hold: {found}")
    return chosen


def _repeated(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        for system, order, seed in comparison.repeated():
            yield (
                f"{system} has more than one sequence of {order}, seed {seed}: "
                "tell them apart with pamctl eval --run"
            )


def _alike(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        for systems, count in comparison.alike().items():
            yield f"{', '.join(systems)} made the very same adapters in {counted(count, 'sequence')}"


def _not_comparable(comparisons: Sequence[Comparison], baseline: Report | None) -> Iterator[str]:
    """Notes on what the baseline does not tell."""
    known = [frozenset(comparison.tasks) for comparison in baseline.comparisons] if baseline else []
    for comparison in comparisons:
        if baseline and frozenset(comparison.tasks) not in known:
            yield f"the baseline has no sequences of {', '.join(comparison.tasks)}"


def _conflicts(diagnoses: Sequence[Diagnosis], labels: dict[str, str]) -> tuple[LayerConflicts, ...]:
    stages: dict[str, list[Diagnosis]] = {}
    for diagnosis in diagnoses:
        stages.setdefault(labels.get(diagnosis.system, diagnosis.system), []).append(diagnosis)
    return tuple(conflicts_of(system, stages[system]) for system in in_order_of_methods(stages))


def _curves(curves: Sequence[Curve], labels: dict[str, str]) -> tuple[Curve, ...]:
    """The curves with systems named as in the tables, system by system; first tasks come first."""
    by_system: dict[str, list[Curve]] = {FIRST: []}
    for curve in curves:
        system = labels.get(curve.system, curve.system)
        by_system.setdefault(system, []).append(replace(curve, system=system))
    return tuple(curve for system in in_order_of_methods(by_system) for curve in by_system[system])


def _csv_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for matrix in comparison.matrices:
        order = comparison.order_of(matrix)
        named = (_name(matrix.method), _name(matrix.run), _name(order), matrix.seed)
        tasks = [_name(task) for task in matrix.tasks]
        for task, score in zip(tasks, matrix.zero_shot, strict=True):
            yield (*named, "zero-shot", 0, "", task, _cell(score))
        if matrix.kind != "sequence":
            for task, score in zip(tasks, matrix.after[-1], strict=True):
                yield (*named, "after", len(matrix.tasks), "", task, _cell(score))
            continue
        for t, learned in enumerate(tasks):
            yield (*named, "trained", t + 1, learned, learned, _cell(matrix.trained[t]))
            for task, score in zip(tasks, matrix.after[t], strict=True):
                yield (*named, "after", t + 1, learned, task, _cell(score))


def _name(name: str | None) -> str | None:
    """A name as a cell that no spreadsheet takes for a formula."""
    return f"'{name}" if name and name.startswith(FORMULA) else name


def _cell(score: float) -> str:
    return "" if np.isnan(score) else repr(float(score))
