"""Training curves: the loss by step, a panel a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pamctl.evaluation.curves import FIRST, Curve, mean_curves
from pamctl.evaluation.figures.drawing import ROW, Look, Looks, short

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

COLUMNS = 3
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
    height = max(0.6 + 2.0 * rows, 1.0 + ROW * len(systems))
    figure = Figure(figsize=(1.9 + 2.4 * columns, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
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
    figure.suptitle("Training curves: mean loss over orders and seeds", x=0.01, ha="left", fontsize=10)
    figure.supxlabel("optimiser step", fontsize=9)
    figure.supylabel("loss", fontsize=9)
    names = [short(system) for system in lines]
    figure.legend(lines.values(), names, frameon=False, loc="outside right upper")
    return figure
