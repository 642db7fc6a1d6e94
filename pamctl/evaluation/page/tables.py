"""Tables of the page: each scrolls in its own box, and those that compare systems can be sorted."""

import re
from collections.abc import Sequence

from pamctl.evaluation.page.elements import Content, Html, element
from pamctl.evaluation.tables import NOT_AVAILABLE, UNDEFINED

COUNT = "n"
"""The column that counts sequences, of which none is the best."""
_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)(?![\w.])")


def sortable_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], caption: str, *, best: Sequence[str] = ()
) -> Html:
    """A table whose columns the page's script sorts by what stands in them, as numbers where they are.

    Args:
        best: the rows, by their first cell, among which the greatest number of a column stands out.
    """
    kinds = ["text", *(_kind([row[column] for row in rows]) for column in range(1, len(header)))]
    head = [
        element("th", name, scope="col", data_sort=kind) for name, kind in zip(header, kinds, strict=True)
    ]
    tops = _tops(header, rows, set(best))
    body = [_row(row, tops) for row in rows]
    return boxed(element("table", _head(caption, head), element("tbody", body), class_="sortable"), caption)


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Html:
    """A table in the order given, its first column naming the rows."""
    head = [element("th", name, scope="col") for name in header]
    body = [_row(row, {}) for row in rows]
    return boxed(element("table", _head(caption, head), element("tbody", body)), caption)


def number_in(cell: str) -> float | None:
    """The number that a cell begins with, such as the mean of `12.30 ± 1.20`; None if there is none."""
    found = _NUMBER.match(cell)
    return float(found.group(1)) if found else None


def boxed(table: Html, label: str) -> Html:
    """A table in a box that scrolls sideways, by keyboard too."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def _kind(cells: Sequence[str]) -> str:
    told = [cell for cell in cells if cell not in (NOT_AVAILABLE, UNDEFINED)]
    return "number" if all(number_in(cell) is not None for cell in told) else "text"


def _head(caption: str, cells: Sequence[Html]) -> Content:
    return element("caption", caption), element("thead", element("tr", cells))


def _row(row: Sequence[str], tops: dict[int, float]) -> Html:
    first, *others = row
    cells = [
        element("td", text, class_="best" if column in tops and number_in(text) == tops[column] else None)
        for column, text in enumerate(others, start=1)
    ]
    return element("tr", element("th", first, scope="row"), cells)


def _tops(header: Sequence[str], rows: Sequence[Sequence[str]], best: set[str]) -> dict[int, float]:
    """The greatest number of each column after the first, among some rows if there are several."""
    among = [row for row in rows if row[0] in best]
    if len(among) < 2:
        return {}
    columns = {
        column: [value for row in among if (value := number_in(row[column])) is not None]
        for column in range(1, len(among[0]))
        if header[column] != COUNT
    }
    return {column: max(values) for column, values in columns.items() if len(values) > 1}
