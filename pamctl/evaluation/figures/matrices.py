"""The accuracy matrices as heat maps."""

from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.figures.drawing import FEW
from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


def matrices(comparison: Comparison) -> "Figure":
    """The accuracy matrix of the first seed of every system (down) and order (across), zero-shot on top.

    Where there are many systems only the lowest matrix of a column names its tasks, which are the same above.
    """
    from matplotlib.figure import Figure

    systems, orders, tasks = comparison.sequential, comparison.orders, comparison.tasks
    many = len(systems) > FEW
    wide, high = (0.4 + 0.3 * len(tasks), 0.7 + 0.3 * len(tasks)) if many else [1.3 + 0.45 * len(tasks)] * 2
    margin = 1.2 if many else 0.0
    figure = Figure(
        figsize=(0.8 + margin + wide * len(orders), 0.3 + margin + high * len(systems)), layout="constrained"
    )
    grid = figure.subplots(len(systems), len(orders), squeeze=False)
    for place in grid.flat:
        place.set_axis_off()
    image = None
    for column, order in enumerate(orders):
        found = [(row, comparison.of(system, order)) for row, system in enumerate(systems)]
        present = [(row, first) for row, (first, *_) in ((row, of) for row, of in found if of)]
        for row, matrix in present:
            image = _heat_map(
                grid[row, column], matrix, order, named=not many or row == present[-1][0], small=many
            )
    if image is not None:
        shrink = high / figure.get_figheight() if many else 0.6
        aspect = 40 if 1 < len(systems) <= FEW else 20
        figure.colorbar(image, ax=grid, label="score (%)", shrink=shrink, aspect=aspect)
    return figure


def _heat_map(axes: "Axes", matrix: AccuracyMatrix, order: str, *, named: bool, small: bool) -> "AxesImage":
    """Draw one matrix; `named` tells the tasks under it, `small` numbers those beside it."""
    tasks, cells = matrix.tasks, np.vstack([matrix.zero_shot, matrix.after])
    axes.set_axis_on()
    image = axes.imshow(np.ma.masked_invalid(cells), vmin=0, vmax=100, cmap="cividis", aspect="equal")
    for (t, i), score in np.ndenumerate(cells):
        text = "n/a" if np.isnan(score) else f"{score:.0f}"
        dark = not np.isnan(score) and score < 55
        axes.text(
            i,
            t,
            text,
            ha="center",
            va="center",
            fontsize=6 if small else 7,
            color="white" if dark else "black",
        )
    axes.axhline(0.5, color="white", linewidth=2)
    names = list(tasks) if named else [""] * len(tasks)
    axes.set_xticks(range(len(tasks)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    learned = [str(count) for count in range(len(tasks) + 1)]
    after = learned if small else ["zero-shot", *(f"after {task}" for task in tasks)]
    axes.set_yticks(range(len(tasks) + 1), after, fontsize=7)
    if named and small:
        axes.set_ylabel("tasks learned", fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    seed = "" if matrix.seed is None else f", seed {matrix.seed}"
    axes.set_title(f"{matrix.system}, {order}{seed}", loc="left", fontsize=8 if small else 10)
    return image
