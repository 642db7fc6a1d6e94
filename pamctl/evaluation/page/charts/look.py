"""How series are told apart: colour, and for eyes or printers without colour the mark and the dashes."""

from pamctl.evaluation.page.elements import Html, element, joined, number

COLOURS = 8
"""How many `--c0` and so on the style sheet has; marks are as many, dashes three: 24 series differ."""
DASHES = 3
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.6 3.6H-4.6z",
    "M0-5.2L5.2 0L0 5.2L-5.2 0z",
    "M0 4.8L4.6-3.6H-4.6z",
    "M-1.5-4.6h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1v-3h3.1z",
    "M-4.4-2.4L-2.4-4.4L0-2L2.4-4.4L4.4-2.4L2-0L4.4 2.4L2.4 4.4L0 2L-2.4 4.4L-4.4 2.4L-2-0z",
    "M0-5L1.4-1.6L5-1.5L2.2.8L3.1 4.3L0 2.3L-3.1 4.3L-2.2.8L-5-1.5L-1.4-1.6z",
)


def colour(index: int) -> str:
    """The class of a series' colour."""
    return f"c{index % COLOURS}"


def dashes(index: int) -> str:
    """The class of a series' line."""
    return f"d{index // COLOURS % DASHES}"


def mark(x: float, y: float, index: int) -> Html:
    """The mark of a series at a place."""
    return element("use", href=f"#mark-{index % len(MARKS)}", x=number(x), y=number(y))


def point(x: float, y: float, index: int, told: str) -> Html:
    """A mark that tells its value when pointed at, or when the keyboard reaches it."""
    return element(
        "g", element("title", told), mark(x, y, index), class_=f"point {colour(index)}", role="img"
    )


def definitions() -> Html:
    """Every mark once, which the drawings of the page refer to."""
    symbols = [element("path", d=shape, id=f"mark-{index}") for index, shape in enumerate(MARKS)]
    return element(
        "svg", element("defs", joined(*symbols)), class_="marks", width=0, height=0, aria_hidden="true"
    )
