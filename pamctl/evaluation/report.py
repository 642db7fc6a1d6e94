"""What a report folder holds: `report.md`, `metrics.json`, `matrix.csv` and the figures it shows."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pamctl.evaluation.conflicts import LayerConflicts
from pamctl.evaluation.curves import Curve
from pamctl.evaluation.figures import write_figures
from pamctl.evaluation.matrix import AccuracyMatrix, matrices_of
from pamctl.evaluation.metrics import METRICS
from pamctl.evaluation.results import Prediction, Result, read_results
from pamctl.evaluation.summary import DDOF, Comparison, Paired, comparisons_of
from pamctl.evaluation.tables import (
    all_pairs_table,
    differences_by_order_table,
    differences_table,
    final_table,
    markdown_table,
    order_table,
    summary_table,
)
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.whole_output import refuse_existing, whole_folder

SCHEMA = "pamctl.metrics/1"
IDENTITY = "BWT (T - 1) / T = ACC - A_m"
REFERENCE = "average"
"""The system that others are held against where none is asked for: PAM without its alignment."""
_FILES = re.compile(
    r"report\.md|metrics\.json|matrix\.csv|(forgetting|accuracy-by-order|matrices)(-\d+)?\.(png|svg)"
)
CSV_FIELDS = ("method", "run", "order", "seed", "state", "learned", "after", "task", "score")


@dataclass(frozen=True)
class Report:
    """What a set of results says: sequences compared, results outside any sequence, and what to know.

    Attributes:
        against: the system that paired differences were asked against.
        predictions: what was answered to single examples, with where in a sequence.
        conflicts: by layer, one for each system that tells them.
        curves: of every training whose log was read.
        baseline: another run that this one is compared with.
    """

    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    against: str | None = None
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

    @property
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


def report_of(paths: Sequence[Path], split: str = "test", against: str | None = None) -> Report:
    """Read results files and compare what they tell of one split.

    Args:
        against: the system that the others are held against; `average` if it is there, else every two.

    Raises:
        Refusal: a file or line is at fault, no result is of this split, or no system is called `against`.
    """
    results, torn = read_results(paths)
    chosen = tuple(result for result in results if result.split == split)
    if not chosen:
        found = ", ".join(sorted({result.split for result in results}))
        raise Refusal(f"no result is of split {split!r}", f"choose one with --split; the files hold: {found}")
    left_out = len(results) - len(chosen)
    others = [f"{left_out} results of other splits are left out"] if left_out else []
    matrices, notes = matrices_of(chosen)
    comparisons = tuple(comparisons_of(matrices))
    systems = dict.fromkeys(system for comparison in comparisons for system in comparison.systems)
    if against is not None and against not in systems:
        raise UsageRefusal(f"no system is called {against!r}", f"choose one of: {', '.join(systems)}")
    alike = [
        f"{system} has more than one sequence of {order}, seed {seed}: tell them apart with pamctl eval --run"
        for comparison in comparisons
        for system, order, seed in comparison.repeated()
    ]
    return Report(chosen, comparisons, tuple(torn + others + notes + alike), against)


def write_report(
    paths: Sequence[Path],
    folder: Path,
    *,
    split: str = "test",
    against: str | None = None,
    force: bool = False,
) -> Report:
    """Compare results files and write the report into a new folder, complete or not at all."""
    refuse_existing(folder, force=force, known=_FILES.fullmatch)
    report = report_of(paths, split, against)
    with whole_folder(folder, force=force, known=_FILES.fullmatch) as draft:
        figures = [
            write_figures(comparison, draft, "" if number == 1 else f"-{number}")
            for number, comparison in enumerate(report.comparisons, start=1)
        ]
        (draft / "report.md").write_text("\n".join(_markdown(report, figures)) + "\n", encoding="utf-8")
        metrics = json.dumps(
            {"schema": SCHEMA, **metrics_json(report)}, indent=2, ensure_ascii=False, allow_nan=False
        )
        (draft / "metrics.json").write_text(metrics + "\n", encoding="utf-8")
        with (draft / "matrix.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(CSV_FIELDS)
            writer.writerows(row for comparison in report.comparisons for row in _csv_rows(comparison))
    return report


def metrics_json(report: Report) -> dict[str, Any]:
    """Everything a report tells, in full precision; null where a cell is missing, or a metric not defined."""
    checked, matrices = report.checked
    return {
        "definitions": dict(METRICS),
        "identity": {"formula": IDENTITY, "checked": checked, "matrices": matrices},
        "std": f"population, ddof {DDOF}, over orders and seeds",
        "comparisons": [_comparison_json(comparison, report) for comparison in report.comparisons],
        "notes": list(report.notes),
    }


def _comparison_json(comparison: Comparison, report: Report) -> dict[str, Any]:
    spreads = {
        system: {metric: comparison.spread(system, metric) for metric in METRICS}
        for system in comparison.systems
    }
    return {
        "tasks": list(comparison.tasks),
        "zero_shot": comparison.zero_shot(),
        "systems": [
            {
                "system": system,
                "metrics": {metric: spread and asdict(spread) for metric, spread in row.items()},
            }
            for system, row in spreads.items()
        ],
        "against": report.against_in(comparison),
        "paired": [_paired_json(pair) for pair in report.pairs(comparison)],
        "sequences": [_sequence_json(comparison, matrix) for matrix in comparison.matrices],
    }


def _paired_json(pair: Paired) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "metric": pair.metric,
        **asdict(pair.spread),
        "ahead": pair.better,
        "differences": [
            {"order": order, "seed": seed, "difference": difference}
            for (order, seed), difference in pair.differences.items()
        ],
    }


def _sequence_json(comparison: Comparison, matrix: AccuracyMatrix) -> dict[str, Any]:
    return {
        "method": matrix.method,
        "run": matrix.run,
        "order": comparison.order_of(matrix),
        "seed": matrix.seed,
        "kind": matrix.kind,
        "tasks": list(matrix.tasks),
        "metrics": matrix.metrics,
        "forgetting": matrix.forgetting,
        "identity_gap": matrix.identity_gap,
        "after": _nulls(matrix.after),
        "trained": _nulls(matrix.trained),
        "zero_shot": _nulls(matrix.zero_shot),
        "missing": [{**asdict(missing), "command": missing.command()} for missing in matrix.missing],
    }


def _nulls(scores: np.ndarray) -> list[Any]:
    if scores.ndim > 1:
        return [_nulls(row) for row in scores]
    return [None if np.isnan(score) else float(score) for score in scores]


def _csv_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for matrix in comparison.matrices:
        named = (matrix.method, matrix.run, comparison.order_of(matrix), matrix.seed)
        for task, score in zip(matrix.tasks, matrix.zero_shot, strict=True):
            yield (*named, "zero-shot", 0, "", task, _cell(score))
        if matrix.kind != "sequence":
            for task, score in zip(matrix.tasks, matrix.after[-1], strict=True):
                yield (*named, "after", len(matrix.tasks), "", task, _cell(score))
            continue
        for t, learned in enumerate(matrix.tasks):
            yield (*named, "trained", t + 1, learned, learned, _cell(matrix.trained[t]))
            for task, score in zip(matrix.tasks, matrix.after[t], strict=True):
                yield (*named, "after", t + 1, learned, task, _cell(score))


def _cell(score: float) -> str:
    return "" if np.isnan(score) else repr(float(score))


def _markdown(report: Report, figures: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "# Continual learning report"
    for comparison, names in zip(report.comparisons, figures, strict=True):
        yield from _comparison_markdown(comparison, report, names)
    if report.single:
        yield from ("", "## Scores outside any sequence", "")
        yield from markdown_table(
            ("adapter", "task", "score (%)", "n"), [_single_row(result) for result in report.single]
        )
    if report.comparisons:
        yield from ("", "## Definitions", "")
        yield from (f"- **{metric}**: {meaning}." for metric, meaning in METRICS.items())
        yield f"- Every score is in percent. ± is the standard deviation over the n sequences (ddof {DDOF})."
        checked, matrices = report.checked
        others = "" if checked == matrices else "; the others have no BWT, or lack cells"
        yield f"- {IDENTITY} was checked, and holds, on {checked} of {matrices} matrices{others}."
    if report.notes:
        yield from ("", "## Notes", "", *(f"- {note}." for note in report.notes))


def _comparison_markdown(comparison: Comparison, report: Report, figures: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {', '.join(comparison.tasks)}", "")
    yield from markdown_table(*summary_table(comparison))
    yield from ("", "### Score on each task after the last one", "")
    yield from markdown_table(*final_table(comparison))
    if len(comparison.orders) > 1:
        yield from ("", "### ACC by order", "")
        yield from markdown_table(*order_table(comparison))
        yield from (
            "",
            *(f"- {order}: {' → '.join(_tasks_of(comparison, order))}" for order in comparison.orders),
        )
    if pairs := report.pairs(comparison):
        yield from _paired_markdown(pairs, report.against_in(comparison), comparison.orders)
    for name in figures:
        yield from ("", f"![{name}]({name}.png)")
    if missing := [cells for matrix in comparison.matrices for cells in matrix.missing]:
        yield from ("", "### Missing cells", "", "These fill what is n/a above:", "", "```sh")
        yield from dict.fromkeys(cells.command() for cells in missing)
        yield "```"


def _paired_markdown(pairs: list[Paired], against: str | None, orders: Sequence[str]) -> Iterator[str]:
    if against is None:
        lead = "The second method minus the first, on the same order and seed."
        yield from ("", "### Paired differences", "", lead, "", *markdown_table(*all_pairs_table(pairs)))
        return
    lead = f"The method minus {against}, on the same order and seed; in brackets, on how many it is ahead."
    yield from ("", f"### Paired differences from {against}", "", lead, "")
    yield from markdown_table(*differences_table(pairs))
    if len(orders) > 1:
        yield from ("", "The means over the seeds of each order:", "")
        yield from markdown_table(*differences_by_order_table(pairs, orders))


def _tasks_of(comparison: Comparison, order: str) -> tuple[str, ...]:
    matrices = sorted(comparison.matrices, key=lambda matrix: matrix.kind != "sequence")
    return next(matrix.tasks for matrix in matrices if comparison.order_of(matrix) == order)


def _single_row(result: Result) -> list[str]:
    adapter = f" {result.adapter[:12]}" if result.adapter else ""
    return [f"{result.method or result.stage}{adapter}", result.task, f"{result.score:.2f}", str(result.n)]
