"""The accuracy matrices as heat maps, all of a comparison in one figure.

Everything stands in one pair of axes whose unit is an inch: with a pair of axes for each matrix, laying them
out would take longer than all the rest of a report.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pamctl.evaluation.figures.drawing import FEW, short
from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"
DARK = 47
"""Percent below which text on a cell is white."""
CHARACTER = 0.055
"""Inches that one of a name takes, at most."""
SLANT = 0.71
"""Of the length of a name under a matrix, what it takes to the left and downwards."""
LONGEST = 24
"""Characters of a name under or beside a matrix."""
LABEL, NUMBER = 7, 5
"""Points of names, and of the scores in small cells."""
LETTER = 0.07
"""Inches that a character of a title takes."""
TITLE, GAP, BAR = 0.26, 0.14, 0.75
"""Inches above a matrix, between two of one system, and for the colour bar."""
WIDEST = 11.0
"""Inches that several systems side by side may take."""
SMALL_WITH_NUMBERS = 7
"""Up to so many tasks, the scores fit into small cells."""


@dataclass(frozen=True)
class Layout:
    """Where matrices stand, in inches: a strip a system, in it a block an order.

    Attributes:
        small: cells are small, names are told once, below the lowest strips.
        cell: the side of one.
        beside: left of each block, for what its rows are called.
        below: a block, for the names of its tasks, and to the left of the first.
        title: the width of the longest.
        across: strips side by side.
    """

    tasks: int
    orders: int
    systems: int
    small: bool
    cell: float
    beside: float
    below: float
    title: float
    across: int

    @property
    def numbered(self) -> bool:
        """Whether each cell shows its score."""
        return not self.small or self.tasks <= SMALL_WITH_NUMBERS

    @property
    def block(self) -> tuple[float, float]:
        """Width and height of a matrix with the row of zero-shot."""
        return self.tasks * self.cell, (self.tasks + 1) * self.cell

    @property
    def strip(self) -> tuple[float, float]:
        """Width and height of a system's matrices with their titles."""
        height = self.block[1] + TITLE + (0 if self.small else self.below)
        width = self.orders * self.step
        return self.beside + (max(width, self.title + GAP) if self.small else width), height

    @property
    def step(self) -> float:
        """From one block of a strip to the next."""
        if self.small:
            return self.block[0] + GAP
        return max(self.block[0] + self.beside, self.title) + GAP

    @property
    def left(self) -> float:
        """The margin that the names under the first block need."""
        return max(0.0, self.below - self.beside) + GAP / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        width, height = self.strip
        down = -(-self.systems // self.across)
        headers = TITLE if self.small else 0.0
        return (
            self.left + self.across * (width + GAP) + BAR,
            down * (height + GAP) + headers + (self.below if self.small else 0) + 2 * GAP,
        )

    def place(self, system: int, order: int) -> tuple[float, float]:
        """The upper left corner of a block, from the left and from the top."""
        down, across = divmod(system, self.across)
        width, height = self.strip
        headers = TITLE if self.small else 0.0
        return (
            self.left + across * (width + GAP) + self.beside + order * self.step,
            GAP + headers + TITLE + down * (height + GAP),
        )

    def is_lowest(self, system: int) -> bool:
        """Whether no strip is below that of a system."""
        return system + self.across >= self.systems


def matrices(comparison: Comparison) -> "Figure":
    """The accuracy matrix of the first seed of every system and order, zero-shot on top."""
    from matplotlib.figure import Figure

    systems, orders = comparison.sequential, comparison.orders
    layout = layout_of(comparison)
    width, height = layout.size
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    numbers = Numbers(NUMBER if layout.small else LABEL)
    for row, system in enumerate(systems):
        for column, order in enumerate(orders):
            if found := comparison.of(system, order):
                title = _title(comparison, found[0], small=layout.small)
                _draw(axes, layout, numbers, found[0], title, (row, column))
    if layout.small:
        _name_orders(axes, layout, orders)
    if layout.numbered:
        numbers.draw(axes)
    _colour_bar(figure, layout)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


def layout_of(comparison: Comparison) -> Layout:
    """The layout of a comparison's matrices: small cells where there are many systems."""
    systems, tasks = len(comparison.sequential), len(comparison.tasks)
    small = systems > FEW
    longest = max(len(short(task, LONGEST)) for task in comparison.tasks)
    few = 0.36 if tasks <= SMALL_WITH_NUMBERS else 0.28
    many = 0.21 if tasks <= SMALL_WITH_NUMBERS else 0.14
    one = Layout(
        tasks=tasks,
        orders=len(comparison.orders),
        systems=systems,
        small=small,
        cell=many if small else few,
        beside=0.36 if small else max(len("after ") + longest, len("zero-shot")) * CHARACTER + 0.05,
        below=longest * CHARACTER * SLANT + 0.1,
        title=max(len(_title(comparison, matrix, small=small)) for matrix in comparison.matrices) * LETTER,
        across=1,
    )
    across = max(1, int((WIDEST - BAR - one.left) / (one.strip[0] + GAP))) if small else 1
    return replace(one, across=min(across, systems))


def _title(comparison: Comparison, matrix: AccuracyMatrix, *, small: bool) -> str:
    """What stands above a matrix, or above all of a system where columns name the orders."""
    order = "" if small else f", {short(comparison.order_of(matrix), 14)}"
    return f"{short(matrix.system)}{order}" + ("" if matrix.seed is None else f", seed {matrix.seed}")


def _draw(
    axes: "Axes",
    layout: Layout,
    numbers: "Numbers",
    matrix: AccuracyMatrix,
    title: str,
    at: tuple[int, int],
) -> None:
    cells = np.vstack([matrix.zero_shot, matrix.after])
    (left, top), (width, height), cell = layout.place(*at), layout.block, layout.cell
    axes.imshow(
        np.ma.masked_invalid(cells),
        vmin=0,
        vmax=100,
        cmap=COLOURS,
        aspect="auto",
        extent=(left, left + width, top + height, top),
    )
    axes.plot([left, left + width], [top + cell] * 2, color="white", linewidth=1.5)
    for (t, i), score in np.ndenumerate(cells):
        numbers.add(left + (i + 0.5) * cell, top + (t + 0.5) * cell, float(score))
    if not layout.small or at[1] == 0:
        axes.text(left, top - 0.06, title, fontsize=8 if layout.small else 9, va="bottom")
    if not layout.small or at[1] == 0:
        _name_rows(axes, layout, matrix, left, top)
    if not layout.small or layout.is_lowest(at[0]):
        for i, task in enumerate(matrix.tasks):
            x, y = left + (i + 0.7) * cell, top + height + 0.05
            axes.text(
                x,
                y,
                short(task, LONGEST),
                fontsize=LABEL,
                rotation=45,
                ha="right",
                va="top",
                rotation_mode="anchor",
            )


def _name_rows(axes: "Axes", layout: Layout, matrix: AccuracyMatrix, left: float, top: float) -> None:
    """What each row is: the number of tasks learned where there is little room."""
    count = len(matrix.tasks)
    names = ["zero-shot", *(f"after {short(task, LONGEST)}" for task in matrix.tasks)]
    if layout.small:
        every = 1 if layout.numbered else 2
        names = [str(learned) if learned % every == 0 else "" for learned in range(count + 1)]
    for t, name in enumerate(names):
        y = top + (t + 0.5) * layout.cell
        axes.text(left - 0.05, y, name, fontsize=LABEL, ha="right", va="center")
    if layout.small:
        y = top + layout.block[1] / 2
        axes.text(left - 0.24, y, "learned", fontsize=LABEL, ha="center", va="center", rotation=90)


def _name_orders(axes: "Axes", layout: Layout, orders: Sequence[str]) -> None:
    for across, (column, order) in _columns(layout, orders):
        left, top = layout.place(across, column)
        name = short(order, max(6, int(layout.block[0] / CHARACTER)))
        axes.text(left, top - TITLE - 0.02, name, fontsize=8, color="0.35", va="bottom")


def _columns(layout: Layout, orders: Sequence[str]) -> Iterator[tuple[int, tuple[int, str]]]:
    for across in range(layout.across):
        for column in enumerate(orders):
            yield across, column


def _colour_bar(figure: "Figure", layout: Layout) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    width, height = layout.size
    tall = min(2.4, layout.block[1], height - 1)
    axes = figure.add_axes(
        (
            (width - BAR + 0.1) / width,
            1 - (layout.place(0, 0)[1] + tall) / height,
            0.12 / width,
            tall / height,
        )
    )
    bar = figure.colorbar(ScalarMappable(Normalize(0, 100), COLOURS), cax=axes)
    bar.set_label("score (%)", fontsize=8)
    bar.ax.tick_params(labelsize=LABEL)


class Numbers:
    """The scores in cells; each is outlined once and repeated, for thousands of texts would be slow."""

    def __init__(self, points: float) -> None:
        self._points = points
        self._places: dict[tuple[str, bool], list[tuple[float, float]]] = {}

    def add(self, x: float, y: float, score: float) -> None:
        """Put a score with its centre at a place; NaN is told as n/a."""
        text = "n/a" if np.isnan(score) else f"{score:.0f}"
        self._places.setdefault((text, score < DARK), []).append((x, y))

    def draw(self, axes: "Axes") -> None:
        """Draw all that were added."""
        from matplotlib.collections import PathCollection
        from matplotlib.transforms import Affine2D

        root: Any = axes.figure
        for (text, dark), places in sorted(self._places.items()):
            drawn = PathCollection(
                [self._path(text)],
                offsets=places,
                offset_transform=axes.transData,
                facecolors="white" if dark else "black",
                linewidths=0,
            )
            drawn.set_transform(Affine2D().scale(1 / 72) + root.dpi_scale_trans)
            axes.add_collection(drawn, autolim=False)

    def _path(self, text: str) -> Any:
        """The outline of a text around its centre, in points."""
        from matplotlib.textpath import TextPath
        from matplotlib.transforms import Affine2D

        path = TextPath((0, 0), text, size=self._points)
        box, digit = path.get_extents(), TextPath((0, 0), "0", size=self._points).get_extents()
        return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(digit.y0 + digit.y1) / 2))
