"""The text of a report: `report.md`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pamctl.evaluation.by_type import scores_by_type, unread_tasks
from pamctl.evaluation.counted import counted
from pamctl.evaluation.metrics import FORGETTING, IDENTITY, definitions
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import DDOF, Comparison, Paired
from pamctl.evaluation.tables import (
    all_pairs_table,
    cell_changes_table,
    changes_table,
    differences_by_order_table,
    differences_table,
    final_table,
    markdown_table,
    order_table,
    summary_table,
    types_table,
    unread_table,
)
from pamctl.printable import harmless

if TYPE_CHECKING:
    from pamctl.evaluation.baseline import Changes
    from pamctl.evaluation.figures import Drawn
    from pamctl.evaluation.report import Report

FENCE = "```"


def markdown_of(report: "Report", figures: "Drawn") -> Iterator[str]:
    """The lines of a report, with the figures drawn of it by name; no name in it is taken for markup."""
    in_code = False
    for line in _lines(report, figures):
        in_code ^= line.startswith(FENCE)
        yield line if in_code else harmless(line.replace("\n", " ")).replace("<", "&lt;")


def _lines(report: "Report", figures: "Drawn") -> Iterator[str]:
    yield "# Continual learning report"
    for comparison, names in zip(report.comparisons, figures.by_comparison, strict=True):
        yield from _comparison(comparison, report, names)
    if figures.of_trainings:
        yield from ("", "## Training")
        yield from _shown(figures.of_trainings)
    if report.single:
        yield from ("", "## Scores outside any sequence", "")
        yield from markdown_table(
            ("adapter", "task", "score (%)", "n"), [_single_row(result) for result in report.single]
        )
    if report.comparisons:
        yield from _definitions(report)
    if report.notes:
        yield from ("", "## Notes", "", *(f"- {note}." for note in report.notes))


def _comparison(comparison: Comparison, report: "Report", figures: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {', '.join(comparison.tasks)}", "")
    yield from markdown_table(*summary_table(comparison))
    yield from ("", "### Score on each task after the last one", "")
    yield from markdown_table(*final_table(comparison))
    yield from _below_scores(comparison)
    if len(comparison.orders) > 1:
        yield from ("", "### ACC by order", "")
        yield from markdown_table(*order_table(comparison))
        yield from (
            "",
            *(f"- {order}: {' → '.join(_tasks_of(comparison, order))}" for order in comparison.orders),
        )
    if pairs := report.pairs(comparison):
        yield from _paired(pairs, report.against_in(comparison), comparison.orders)
    if changes := report.changes(comparison):
        yield from _changes(changes, comparison)
    yield from _shown(figures)
    if missing := [cells for matrix in comparison.matrices for cells in matrix.missing]:
        yield from ("", "### Missing cells", "", "These fill what is n/a above:", "", f"{FENCE}sh")
        yield from dict.fromkeys(cells.command() for cells in missing)
        yield FENCE


def _below_scores(comparison: Comparison) -> Iterator[str]:
    for task, scores in scores_by_type(comparison).items():
        yield from ("", f"### {task} by type of question, after the last task", "")
        yield from markdown_table(*types_table(scores))
    if told := unread_tasks(comparison):
        lead = "Percent of the predictions after the last task; each is scored 0."
        yield from ("", "### Predictions that no answer could be read from", "", lead, "")
        yield from markdown_table(*unread_table(comparison, told))


def _shown(figures: Sequence[str]) -> Iterator[str]:
    for name in figures:
        yield from ("", f"![{name}]({name}.png)")


def _paired(pairs: list[Paired], against: str | None, orders: Sequence[str]) -> Iterator[str]:
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


def _changes(changes: "Changes", comparison: Comparison) -> Iterator[str]:
    lead = "This run minus the baseline, on the same system, order of tasks and seed."
    yield from ("", "### Differences from the baseline", "", lead, "")
    yield from markdown_table(*changes_table(changes, comparison))
    cells = f"{len(changes.cells)} of the {changes.compared} cells that both have differ"
    if changes.largest:
        yield from ("", f"{cells}; these the most:", "", *markdown_table(*cell_changes_table(changes)))
    else:
        yield from ("", f"{cells}.")
    for where, systems in (("this run", changes.only_now), ("the baseline", changes.only_before)):
        if systems:
            yield from ("", f"Only in {where}: {', '.join(systems)}.")


def _definitions(report: "Report") -> Iterator[str]:
    yield from ("", "## Definitions", "")
    yield from (f"- **{metric}**: {meaning}." for metric, meaning in definitions(report.fwt).items())
    yield f"- **forgetting** over time: {FORGETTING['forgetting']}."
    yield f"- Every score is in percent. ± is the standard deviation over the n sequences (ddof {DDOF})."
    checked, matrices = report.checked
    of = counted(matrices, "matrix", "matrices")
    others = "" if checked == matrices else "; the others have no BWT, or lack cells"
    yield f"- {IDENTITY} was checked, and holds, on {checked} of {of}{others}."


def _tasks_of(comparison: Comparison, order: str) -> tuple[str, ...]:
    matrices = sorted(comparison.matrices, key=lambda matrix: matrix.kind != "sequence")
    return next(matrix.tasks for matrix in matrices if comparison.order_of(matrix) == order)


def _single_row(result: Result) -> list[str]:
    adapter = f" {result.adapter[:12]}" if result.adapter else ""
    return [f"{result.method or result.stage}{adapter}", result.task, f"{result.score:.2f}", str(result.n)]
