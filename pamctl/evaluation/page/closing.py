"""What stands after the comparisons: scores outside them, what the words mean, what is missing, notes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pamctl.evaluation.counted import counted
from pamctl.evaluation.metrics import FORGETTING, IDENTITY, definitions
from pamctl.evaluation.page.elements import element
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.page.tables import plain_table
from pamctl.evaluation.results import Result
from pamctl.evaluation.summary import DDOF

if TYPE_CHECKING:
    from pamctl.evaluation.report import Report

MOST_COMMANDS = 100
"""So many of the commands for missing cells are shown."""


def closing_sections(report: "Report") -> Iterator[Section]:
    """Each that has something to tell."""
    if report.single:
        title = "Scores outside any sequence"
        rows = [_single(result) for result in report.single]
        yield Section("single", title, plain_table(("adapter", "task", "score (%)", "n"), rows, title))
    if report.comparisons:
        yield _definitions(report)
    if commands := _commands(report):
        yield _missing(commands)
    if report.notes:
        notes = element("ul", [element("li", f"{note}.") for note in report.notes])
        yield Section("notes", "Notes", notes)


def _definitions(report: "Report") -> Section:
    meanings = {**definitions(report.fwt), "forgetting": FORGETTING["forgetting"]}
    pairs = [(element("dt", name), element("dd", f"{meaning}.")) for name, meaning in meanings.items()]
    checked, matrices = report.checked
    of = counted(matrices, "matrix", "matrices")
    others = "" if checked == matrices else "; the others have no BWT, or lack cells"
    note = (
        f"Every score is in percent. ± is the standard deviation over the n sequences (ddof {DDOF}). "
        f"{IDENTITY} was checked, and holds, on {checked} of {of}{others}."
    )
    listed = element("dl", pairs, class_="definitions")
    return Section("definitions", "Definitions", [listed, element("p", note)])


def _commands(report: "Report") -> list[str]:
    matrices = [matrix for comparison in report.comparisons for matrix in comparison.matrices]
    return list(dict.fromkeys(cells.command() for matrix in matrices for cells in matrix.missing))


def _missing(commands: list[str]) -> Section:
    shown = element("code", "\n".join(commands[:MOST_COMMANDS]))
    left = len(commands) - MOST_COMMANDS
    return Section(
        "missing",
        "Missing cells",
        [
            element("p", "These fill what is n/a above:"),
            element("pre", shown, tabindex=0, role="region", aria_label="Commands"),
            element("p", f"{left} more are in metrics.json.") if left > 0 else "",
        ],
    )


def _single(result: Result) -> list[str]:
    adapter = f" {result.adapter[:12]}" if result.adapter else ""
    name = f"{result.method or result.stage}{adapter}"
    return [name, result.task, f"{result.score:.2f}", str(result.n)]
