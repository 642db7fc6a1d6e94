"""How every figure is drawn: colours and marks that are told apart without colour vision, and no dates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pamctl.evaluation.summary import Comparison
from pamctl.printable import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, the yellow left out that is hard to see on white."""
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":")
FEW = 6
"""Up to so many systems are drawn with bands and full names."""
ROW = 0.19
"""Inches that a line of a legend takes."""
WIDTH = 7.6
"""Inches, legend included."""
STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "pamctl",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a series."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[int, ...]]


Looks = Mapping[str, Look]
"""By system, the same in every figure of a report."""


def look(index: int) -> Look:
    """That of the series of a number; 56 of them differ."""
    dashes = DASHES[index // len(PALETTE) % len(DASHES)]
    return Look(PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)], dashes)


def looks_of(systems: Iterable[str]) -> Looks:
    """The looks of some systems, each named once."""
    return {system: look(index) for index, system in enumerate(dict.fromkeys(systems))}


def blank(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure of so many inches with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def beside(axes: "Axes") -> None:
    """Put the legend to the right of the axes."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def drawn_from(comparison: Comparison) -> str:
    """How many sequences a method has, in words."""
    counts = sorted({len(comparison.of(system)) for system in comparison.sequential})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{each} sequence{'' if each == '1' else 's'} a method"


def short(name: str, most: int = 28) -> str:
    """A name cut to so many characters, with an ellipsis where it was longer, on one line."""
    cut = name if len(name) <= most else f"{name[: most - 1]}…"
    shown = harmless(cut.replace("\n", " "))
    # what begins with an underscore is left out of legends
    return f" {shown}" if shown.startswith("_") else shown
