"""Training curves: the loss by step, a panel a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamctl.evaluation.curves import FIRST, Curve, mean_curves
from pamctl.evaluation.figures.drawing import ROW, Look, Looks, short

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
TITLE = "Training curves: mean loss over orders and seeds"
PANEL, GAP = (2.05, 1.3), (0.42, 0.5)
"""Width and height of a panel, and between two, in inches."""
LEFT, TOP, BOTTOM = 0.6, 0.6, 0.05
"""Inches around the panels."""
LETTER = 0.078
"""Inches that a character in the legend takes, at most."""
_FIRST = Look("#7F7F7F", "", (0, (1, 1)))


def training_curves(curves: Sequence[Curve], looks: Looks, order: Sequence[str] = ()) -> "Figure":
    """The mean loss over orders and seeds by optimiser step, a line a system.

    Args:
        order: of the panels; tasks that it lacks come after.
    """
    from matplotlib.figure import Figure

    found = mean_curves(curves)
    known = {curve.task for curve in found}
    tasks = list(dict.fromkeys([*(task for task in order if task in known), *sorted(known)]))
    names = {curve.system: short(curve.system) for curve in found}
    panels = Panels(len(tasks), 0.3 + ROW * len(names), 0.45 + max(map(len, names.values())) * LETTER)
    figure = Figure(figsize=panels.size)
    grid = panels.on(figure)
    lines: dict[str, Artist] = {}
    for curve in found:
        look = looks.get(curve.system, _FIRST) if curve.system != FIRST else _FIRST
        (line,) = grid[tasks.index(curve.task)].plot(
            curve.steps, curve.loss, color=look.colour, linestyle=look.dashes, linewidth=1.1
        )
        lines.setdefault(curve.system, line)
    for task, axes in zip(tasks, grid, strict=True):
        axes.set_title("all at once" if "+" in task else short(task, 26), loc="left", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
    figure.legend(lines.values(), names.values(), frameon=False, loc="upper right")
    return figure


@dataclass(frozen=True)
class Panels:
    """Where panels stand, in inches; laid out by hand, for ten take the constrained layout most of a second.

    Attributes:
        count: of panels.
        tall, beside: height and width of the legend to their right.
    """

    count: int
    tall: float
    beside: float

    @property
    def columns(self) -> int:
        """How many stand side by side."""
        return min(COLUMNS, self.count)

    @property
    def rows(self) -> int:
        """How many stand one above the other."""
        return -(-self.count // self.columns)

    @property
    def within(self) -> tuple[float, float]:
        """Width and height of all of them."""
        (width, height), (across, down) = PANEL, GAP
        return self.columns * (width + across) - across, self.rows * (height + down) - down

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        width, height = self.within
        return LEFT + width + GAP[0] + self.beside, max(TOP + height + GAP[1] + BOTTOM, self.tall)

    def on(self, figure: "Figure") -> "list[Axes]":
        """The panels on a figure of this size, with what is written around them."""
        (width, height), (across, down) = self.size, self.within
        grid = figure.subplots(self.rows, self.columns, squeeze=False)
        figure.subplots_adjust(
            left=LEFT / width,
            right=(LEFT + across) / width,
            top=1 - TOP / height,
            bottom=1 - (TOP + down) / height,
            wspace=GAP[0] / PANEL[0],
            hspace=GAP[1] / PANEL[1],
        )
        for axes in grid.flat[self.count :]:
            axes.set_axis_off()
        edge = 0.08
        figure.text(edge / width, 1 - edge / height, TITLE, fontsize=10, va="top")
        figure.text((LEFT + across / 2) / width, edge / height, "optimiser step", ha="center", fontsize=9)
        figure.text(edge / width, 1 - (TOP + down / 2) / height, "loss", rotation=90, va="center", fontsize=9)
        return list(grid.flat[: self.count])
