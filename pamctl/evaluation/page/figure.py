"""What a figure of the page is: a drawing, the words that stand for it, and its numbers as a table."""

from collections.abc import Mapping, Sequence

from pamctl.evaluation.page.elements import Content, element
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.page.tables import plain_table

WIDE, NARROW = 580.0, 336.0
"""Pixels across a drawing that is made for both: the style sheet shows the one that fits."""
Looks = Mapping[str, int]
"""The number of each system's colour and mark, which are the same in every figure."""


def figure_section(
    id: str,
    title: str,
    caption: str,
    drawing: Content,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str | None = "half",
) -> Section:
    """A section with one figure.

    Args:
        caption: what it shows and says, for those who see it and those who do not.
        header, rows: its numbers.
        kind: `half` where two of them stand beside one another if there is room.
    """
    data = element(
        "details",
        element("summary", f"Numbers of “{title}”"),
        plain_table(header, rows, f"Numbers of {title}"),
    )
    return Section(id, title, element("figure", drawing, element("figcaption", caption), data), kind=kind)
