"""The tables of a report on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pamctl.cli.output import draws_blocks, print_table, say
from pamctl.evaluation.report import Report
from pamctl.evaluation.sparkline import sparkline
from pamctl.evaluation.summary import Comparison
from pamctl.evaluation.tables import UNDEFINED, Table, cell_changes_table, changes_table, summary_table
from pamctl.printable import harmless, printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def print_report(report: Report) -> None:
    """Print the main table of each comparison, forgetting as a sparkline, and what changed in it."""
    for comparison in report.comparisons:
        header, rows = with_forgetting(comparison, summary_table(comparison), plain=not draws_blocks())
        print_table(_table(f"\n{', '.join(comparison.tasks)}", header, rows), whole=True)
        if changes := report.changes(comparison):
            print_table(
                _table("\ndifferences from the baseline", *changes_table(changes, comparison)), whole=True
            )
            say(f"{len(changes.cells)} of the {changes.compared} cells that both have differ")
            if changes.largest:
                print_table(_table("", *cell_changes_table(changes)), whole=True)


def with_forgetting(comparison: Comparison, table: Table, *, plain: bool) -> Table:
    """A table of systems, after the zero-shot row, with forgetting over time as a last column.

    Every line is drawn from 0, or the least below it, to the most forgotten by any system.
    """
    header, rows = table
    found = {
        system: [None if spread is None else spread.mean for spread in comparison.forgetting(system)]
        for system in comparison.systems
    }
    known = [value for values in found.values() for value in values if value is not None]
    if not known:
        return table
    low, high = min(0.0, *known), max(0.0, *known)
    lines = [sparkline(found[system], low, high, plain=plain) or UNDEFINED for system in comparison.systems]
    return (*header, f"forgetting\n{low:.0f} to {high:.0f}"), [
        [*row, line] for row, line in zip(rows, ["", *lines], strict=True)
    ]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> "RichTable":
    from rich.table import Table

    table = Table(title=harmless(title) or None, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(header):
        last = name.startswith("forgetting")
        table.add_column(
            harmless(name).replace(" (", "\n("), justify="left" if number == 0 or last else "right"
        )
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max((len(printable(row[0])) for row in rows), default=0)
    for row in rows:
        table.add_row(*(printable(cell).replace(" ± ", "±") for cell in row))
    return table
