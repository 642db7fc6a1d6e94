"""What the page says of a comparison in words and tables: what was compared, the metrics, what differs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pamctl.evaluation.baseline import Changes
from pamctl.evaluation.by_type import scores_by_type, unread_tasks
from pamctl.evaluation.page.elements import Content, Html, element, identifier
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.page.tables import plain_table, sortable_table
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import Comparison, Paired
from pamctl.evaluation.tables import (
    all_pairs_table,
    cell_changes_table,
    changes_table,
    differences_by_order_table,
    differences_table,
    final_table,
    order_table,
    summary_table,
    types_table,
    unread_table,
)

if TYPE_CHECKING:
    from pamctl.evaluation.report import Report

MOST_PAIRS = 300
"""Rows of the table of every two systems that are shown."""


def facts(comparison: Comparison, results: Sequence[Result]) -> Html:
    """Tasks, orders, seeds, methods, and how many sequences."""
    scored = {result.task: result for result in reversed(results)}
    seeds = sorted({matrix.seed for matrix in comparison.matrices if matrix.seed is not None})
    pairs: list[tuple[str, Content]] = [
        ("Tasks", _listed([_task(task, scored.get(task)) for task in comparison.tasks])),
        ("Orders", _listed(list(_orders(comparison)))),
        ("Seeds", ", ".join(map(str, seeds)) or "not told"),
        ("Methods", ", ".join(comparison.systems)),
        ("Sequences", str(len(comparison.matrices))),
    ]
    return element("dl", [(element("dt", name), element("dd", told)) for name, told in pairs], class_="facts")


def number_sections(comparison: Comparison, report: "Report", id: str) -> Iterator[Section]:
    """The tables of a comparison."""
    best = comparison.sequential
    note = element(
        "p", "± is the standard deviation over the n sequences of a method; bold is the best of a column."
    )
    table = sortable_table(*summary_table(comparison), "Metrics of every method", best=best)
    yield Section(identifier(id, "metrics"), "Metrics", [note, table])
    title = "Score on each task after the last one"
    yield Section(identifier(id, "final"), title, sortable_table(*final_table(comparison), title, best=best))
    yield from _below_scores(comparison, id)
    if len(comparison.orders) > 1:
        table = sortable_table(*order_table(comparison), "ACC by order", best=best)
        yield Section(identifier(id, "by-order"), "ACC by order", table)
    yield from _differences(comparison, report, identifier(id, "differences"))
    if (changes := report.changes(comparison)) is not None:
        yield _changes(changes, comparison, identifier(id, "baseline"))


def _below_scores(comparison: Comparison, id: str) -> Iterator[Section]:
    """Scores by type of question, and what could not be read, of the tasks that tell them."""
    for place, (task, scores) in enumerate(scores_by_type(comparison).items()):
        title = f"{task} by type of question, after the last task"
        best = comparison.sequential
        table = sortable_table(*types_table(scores), title, best=best)
        yield Section(identifier(id, f"types-{place}"), title, table)
    if unread := unread_tasks(comparison):
        title = "Predictions that no answer could be read from"
        lead = element("p", "Percent of the predictions after the last task; each is scored 0.")
        table = sortable_table(*unread_table(comparison, unread), title)
        yield Section(identifier(id, "unread"), title, [lead, table])


def _differences(comparison: Comparison, report: "Report", id: str) -> Iterator[Section]:
    pairs, against = report.pairs(comparison), report.against_in(comparison)
    if not pairs:
        return
    if against is None:
        yield _all_pairs(pairs, id)
        return
    title = f"Differences from {against}"
    lead = f"The method minus {against}, on the same order and seed; in brackets, on how many it is ahead."
    content = [element("p", lead), sortable_table(*differences_table(pairs), title)]
    if len(comparison.orders) > 1:
        by_order = differences_by_order_table(pairs, comparison.orders)
        content += [
            element("p", "The means over the seeds of each order:"),
            sortable_table(*by_order, f"{title} in each order"),
        ]
    yield Section(id, title, content)


def _all_pairs(pairs: Sequence[Paired], id: str) -> Section:
    """The differences of every two systems, which grow with the square of their number."""
    header, rows = all_pairs_table(pairs)
    left = len(rows) - MOST_PAIRS
    title = "Paired differences"
    content = [
        element("p", "The second method minus the first, on the same order and seed."),
        sortable_table(header, rows[:MOST_PAIRS], title),
        element("p", f"{left} more are in report.md; --against NAME compares with one.") if left > 0 else "",
    ]
    return Section(id, title, content)


def _changes(changes: Changes, comparison: Comparison, id: str) -> Section:
    """What differs from another run of the same systems."""
    title = "Differences from the baseline"
    content: list[Html] = [
        element("p", "This run minus the baseline, on the same system, order of tasks and seed."),
        sortable_table(*changes_table(changes, comparison), title),
    ]
    cells = f"{len(changes.cells)} of the {changes.compared} cells that both have differ"
    content.append(element("p", f"{cells}; these the most:" if changes.largest else f"{cells}."))
    if changes.largest:
        content.append(plain_table(*cell_changes_table(changes), "Cells that differ the most"))
    for where, systems in (("this run", changes.only_now), ("the baseline", changes.only_before)):
        if systems:
            content.append(element("p", f"Only in {where}: {', '.join(systems)}."))
    return Section(id, title, content)


def _listed(lines: Sequence[str]) -> Html:
    return element("ul", [element("li", line) for line in lines])


def _task(task: str, result: Result | None) -> str:
    return task if result is None else f"{task} ({result.metric}, n = {result.n})"


def _orders(comparison: Comparison) -> Iterator[str]:
    """Each order with its tasks."""
    sequences = [matrix for matrix in comparison.matrices if matrix.kind == "sequence"]
    for order in comparison.orders:
        tasks = next((matrix.tasks for matrix in sequences if comparison.order_of(matrix) == order), None)
        yield order if tasks is None else f"{order}: {' → '.join(tasks)}"
