"""What a report folder holds: `report.md`, `metrics.json`, `matrix.csv` and the figures it shows."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pamctl.evaluation.figures import write_figures
from pamctl.evaluation.matrix import AccuracyMatrix, matrices_of
from pamctl.evaluation.metrics import METRICS, identity_gap
from pamctl.evaluation.results import Result, read_results
from pamctl.evaluation.summary import DDOF, Comparison, Spread, comparisons_of
from pamctl.refusal import Refusal
from pamctl.whole_output import refuse_existing, whole_folder

SCHEMA = "pamctl.metrics/1"
NOT_AVAILABLE = "n/a"
_FILES = re.compile(
    r"report\.md|metrics\.json|matrix\.csv|(forgetting|accuracy-by-order|matrices)(-\d+)?\.(png|svg)"
)
CSV_FIELDS = ("method", "run", "order", "seed", "state", "learned", "after", "task", "score")
PAIRED_IN_TABLE = ("ACC", "BWT", "A_m")


@dataclass(frozen=True)
class Report:
    """What a set of results says: sequences compared, results outside any sequence, and what to know."""

    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def single(self) -> list[Result]:
        """Results that are in no sequence; those of the base are here only where no sequence is."""
        return [
            result
            for result in self.results
            if not (result.tasks or (result.stage == "base" and self.comparisons))
        ]


def report_of(paths: Sequence[Path], split: str = "test") -> Report:
    """Read results files and compare what they tell of one split.

    Raises:
        Refusal: a file or line is at fault, or no result is of this split.
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
    alike = [
        f"{system} has more than one sequence of {order}, seed {seed}: tell them apart with pamctl eval --run"
        for comparison in comparisons
        for system, order, seed in comparison.repeated()
    ]
    return Report(chosen, comparisons, tuple(torn + others + notes + alike))


def write_report(paths: Sequence[Path], folder: Path, *, split: str = "test", force: bool = False) -> Report:
    """Compare results files and write the report into a new folder, complete or not at all."""
    refuse_existing(folder, force=force, known=_FILES.fullmatch)
    report = report_of(paths, split)
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
    """Everything a report tells, in full precision; null where a cell is missing."""
    return {
        "definitions": dict(METRICS),
        "std": f"population, ddof {DDOF}, over orders and seeds",
        "comparisons": [_comparison_json(comparison) for comparison in report.comparisons],
        "notes": list(report.notes),
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
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
        "paired": [
            {
                "first": pair.first,
                "second": pair.second,
                "metric": pair.metric,
                **asdict(pair.spread),
                "differences": [
                    {"order": order, "seed": seed, "difference": difference}
                    for (order, seed), difference in pair.differences.items()
                ],
            }
            for pair in comparison.pairs()
        ],
        "sequences": [_sequence_json(comparison, matrix) for matrix in comparison.matrices],
    }


def _sequence_json(comparison: Comparison, matrix: AccuracyMatrix) -> dict[str, Any]:
    return {
        "method": matrix.method,
        "run": matrix.run,
        "order": comparison.order_of(matrix),
        "seed": matrix.seed,
        "tasks": list(matrix.tasks),
        "metrics": matrix.metrics,
        "forgetting": matrix.forgetting,
        "identity_gap": identity_gap(matrix.after),
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
        for t, learned in enumerate(matrix.tasks):
            yield (*named, "trained", t + 1, learned, learned, _cell(matrix.trained[t]))
            for task, score in zip(matrix.tasks, matrix.after[t], strict=True):
                yield (*named, "after", t + 1, learned, task, _cell(score))


def _cell(score: float) -> str:
    return "" if np.isnan(score) else repr(float(score))


def _markdown(report: Report, figures: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "# Continual learning report"
    for comparison, names in zip(report.comparisons, figures, strict=True):
        yield from _comparison_markdown(comparison, names)
    if report.single:
        yield from ("", "## Scores outside any sequence", "")
        yield from markdown_table(
            ("adapter", "task", "score (%)", "n"), [_single_row(result) for result in report.single]
        )
    if report.comparisons:
        yield from ("", "## Definitions", "")
        yield from (f"- **{metric}**: {meaning}." for metric, meaning in METRICS.items())
        yield f"- Every score is in percent. ± is the standard deviation over the n sequences (ddof {DDOF})."
        yield "- Every full matrix satisfies BWT (T - 1) / T = ACC - A_m; it is checked on unrounded numbers."
    if report.notes:
        yield from ("", "## Notes", "", *(f"- {note}." for note in report.notes))


def _comparison_markdown(comparison: Comparison, figures: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {', '.join(comparison.tasks)}", "")
    header, rows = summary_table(comparison)
    yield from markdown_table(header, rows)
    yield from ("", "### Score on each task after the last one", "")
    yield from markdown_table(*final_table(comparison))
    if len(comparison.orders) > 1:
        yield from ("", "### ACC by order", "")
        cells = [
            [system, *(_shown(comparison.spread(system, "ACC", o)) for o in comparison.orders)]
            for system in comparison.systems
        ]
        yield from markdown_table(("method", *comparison.orders), cells)
        yield from (
            "",
            *(f"- {order}: {' → '.join(_tasks_of(comparison, order))}" for order in comparison.orders),
        )
    if pairs := paired_rows(comparison):
        yield from (
            "",
            "### Paired differences",
            "",
            "The second method minus the first, on the same order and seed.",
            "",
        )
        yield from markdown_table(("methods", "metric", "difference", "ahead on"), pairs)
    for name in figures:
        yield from ("", f"![{name}]({name}.png)")
    if missing := [cells for matrix in comparison.matrices for cells in matrix.missing]:
        yield from ("", "### Missing cells", "", "These fill what is n/a above:", "", "```sh")
        yield from dict.fromkeys(cells.command() for cells in missing)
        yield "```"


def summary_table(comparison: Comparison) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the table of methods and metrics."""
    scores = [score for score in comparison.zero_shot().values() if score is not None]
    zero = f"{np.mean(scores):.2f}" if len(scores) == len(comparison.tasks) else NOT_AVAILABLE
    rows = [["zero-shot", zero, *["-"] * (len(METRICS) - 1), "-"]]
    for system in comparison.systems:
        cells = [_shown(comparison.spread(system, metric)) for metric in METRICS]
        rows.append([system, *cells, str(len(comparison.of(system)))])
    return ("method", *METRICS, "n"), rows


def final_table(comparison: Comparison) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the table of methods and final scores by task."""
    zero_shot = comparison.zero_shot()
    rows = [
        ["zero-shot", *(NOT_AVAILABLE if score is None else f"{score:.2f}" for score in zero_shot.values())]
    ]
    for system in comparison.systems:
        rows.append([system, *(_shown(comparison.final_score(system, task)) for task in comparison.tasks)])
    return ("method", *comparison.tasks), rows


def paired_rows(comparison: Comparison) -> list[list[str]]:
    """Rows (methods, metric, difference, ahead on) of the metrics that the report shows."""
    return [
        [
            f"{pair.second} - {pair.first}",
            pair.metric,
            _shown(pair.spread, signed=True),
            f"{pair.better} of {pair.spread.n}",
        ]
        for pair in comparison.pairs()
        if pair.metric in PAIRED_IN_TABLE
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, numbers to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    rule = "| --- |" + " ---: |" * (len(header) - 1)
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], rule, *lines[1:]]


def _shown(spread: Spread | None, *, signed: bool = False) -> str:
    if spread is None:
        return NOT_AVAILABLE
    mean = f"{spread.mean:+.2f}" if signed else f"{spread.mean:.2f}"
    return mean if spread.n == 1 else f"{mean} ± {spread.std:.2f}"


def _tasks_of(comparison: Comparison, order: str) -> tuple[str, ...]:
    return next(matrix.tasks for matrix in comparison.matrices if comparison.order_of(matrix) == order)


def _single_row(result: Result) -> list[str]:
    adapter = f" {result.adapter[:12]}" if result.adapter else ""
    return [f"{result.method or result.stage}{adapter}", result.task, f"{result.score:.2f}", str(result.n)]
