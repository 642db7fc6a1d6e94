"""Training curves: the loss by step, a panel a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pamctl.evaluation.curves import FIRST, Curve, mean_curves
from pamctl.evaluation.figures.drawing import ROW, Look, Looks, short

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

COLUMNS = 3
TITLE = "Training curves: mean loss over orders and seeds"
PANEL, GAP = (2.05, 1.3), (0.42, 0.5)
"""Width and height of a panel, and between two, in inches."""
LEFT, TOP, BOTTOM = 0.6, 0.6, 0.05
"""Inches around the panels."""
LETTER = 0.078
"""Inches that a character in the legend takes, at most."""
_FIRST = Look("#7F7F7F", "", (0, (1, 1)))  # type: ignore[arg-type]


def training_curves(curves: Sequence[Curve], looks: Looks, order: Sequence[str] = ()) -> "Figure":
    """The mean loss over orders and seeds by optimiser step, a line a system.

    Args:
        order: of the panels; tasks that it lacks come after.
    """
    from matplotlib.figure import Figure

    found = mean_curves(curves)
    known = {curve.task for curve in found}
    tasks = list(dict.fromkeys([*(task for task in order if task in known), *sorted(known)]))
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    systems = list(dict.fromkeys(curve.system for curve in found))
    legend = 0.45 + max(len(short(system)) for system in systems) * LETTER
    width, height = (
        LEFT + columns * (PANEL[0] + GAP[0]) + legend,
        max(TOP + rows * (PANEL[1] + GAP[1]) + BOTTOM, 0.3 + ROW * len(systems)),
    )
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    # laid out by hand: as many panels as these would take the constrained layout most of a second
    figure.subplots_adjust(
        left=LEFT / width,
        right=(LEFT + columns * (PANEL[0] + GAP[0]) - GAP[0]) / width,
        top=1 - TOP / height,
        bottom=1 - (TOP + rows * (PANEL[1] + GAP[1]) - GAP[1]) / height,
        wspace=GAP[0] / PANEL[0],
        hspace=GAP[1] / PANEL[1],
    )
    for axes in grid.flat[len(tasks) :]:
        axes.set_axis_off()
    lines: dict[str, Artist] = {}
    for curve in found:
        look = looks.get(curve.system, _FIRST) if curve.system != FIRST else _FIRST
        (line,) = grid.flat[tasks.index(curve.task)].plot(
            curve.steps, curve.loss, color=look.colour, linestyle=look.dashes, linewidth=1.1
        )
        lines.setdefault(curve.system, line)
    for task, axes in zip(tasks, grid.flat, strict=False):
        axes.set_title("all at once" if "+" in task else short(task, 26), loc="left", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
    figure.text(0.08 / width, 1 - 0.08 / height, TITLE, fontsize=10, va="top")
    middle = (LEFT + columns * (PANEL[0] + GAP[0]) / 2) / width
    figure.text(middle, 0.08 / height, "optimiser step", ha="center", fontsize=9)
    figure.text(0.08 / width, 0.5, "loss", rotation=90, va="center", fontsize=9)
    names = [short(system) for system in lines]
    figure.legend(lines.values(), names, frameon=False, loc="upper right")
    return figure
