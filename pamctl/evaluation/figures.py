"""What the figures of a report show; the same results give the same bytes.

Files carry no dates, colours are told apart without colour vision (Okabe and Ito), and axes name their units.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":")
FEW = 6
"""Up to so many systems are drawn with bands and full names."""
ROW = 0.19
"""Inches that a line of a legend takes."""
STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "pamctl",
}
DOTS_PER_INCH = 150


def write_figures(comparison: Comparison, folder: Path, suffix: str = "") -> list[str]:
    """Draw a comparison as PNG and SVG files; returns the name of each figure, without its ending."""
    import matplotlib

    with matplotlib.rc_context(cast("Any", {**matplotlib.rcParamsDefault, **STYLE})):
        drawn = {"accuracy-by-order": accuracy_by_order(comparison)}
        if comparison.sequential and len(comparison.tasks) > 1:
            drawn = {"forgetting": forgetting_over_time(comparison), **drawn}
        if comparison.sequential:
            drawn["matrices"] = matrices(comparison)
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}{suffix}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})
            figure.savefig(folder / f"{name}{suffix}.svg", metadata={"Date": None, "Creator": None})
    return [f"{name}{suffix}" for name in drawn]


def forgetting_over_time(comparison: Comparison) -> "Figure":
    """F_t against the number of tasks learned, a line a method; the band is one standard deviation.

    The bands are left out where there are too many to be told apart.
    """
    systems = comparison.sequential
    figure, axes = _figure(7.6, max(3.8, 1.2 + ROW * len(systems)))
    for index, system in enumerate(systems):
        spreads = comparison.forgetting(system)
        mean = np.array([np.nan if spread is None else spread.mean for spread in spreads])
        std = np.array([np.nan if spread is None else spread.std for spread in spreads])
        learned = np.arange(2, len(mean) + 2)
        colour, marker, dashes = _look(index)
        axes.plot(learned, mean, color=colour, marker=marker, linestyle=dashes, markersize=4.5, label=system)
        if len(systems) <= FEW:
            axes.fill_between(learned, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(range(2, len(comparison.tasks) + 1))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("forgetting (points, lower is better)")
    drawn = "mean and std" if len(systems) <= FEW else "mean"
    axes.set_title(f"Forgetting over time\n{drawn} over {_drawn_from(comparison)}", loc="left")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def accuracy_by_order(comparison: Comparison) -> "Figure":
    """ACC of every system (down), a mark an order; the whisker is one standard deviation over seeds."""
    systems, orders = comparison.systems, comparison.orders
    figure, axes = _figure(7.6, max(2.6, 1.3 + max(0.3, 0.11 * (len(orders) + 1)) * len(systems)))
    for index, order in enumerate(orders):
        spreads = [comparison.spread(system, "ACC", order) for system in systems]
        places = np.arange(len(systems)) + (index - (len(orders) - 1) / 2) * 0.7 / len(orders)
        means = [np.nan if spread is None else spread.mean for spread in spreads]
        whiskers = [np.nan if spread is None or spread.n < 2 else spread.std for spread in spreads]
        colour, marker, _ = _look(index)
        axes.errorbar(
            means, places, xerr=whiskers, color=colour, fmt=marker, markersize=4.5, elinewidth=1, label=order
        )
    for place in range(1, len(systems), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    zero_shot = list(comparison.zero_shot().values())
    if None not in zero_shot:
        mean = float(np.mean([score for score in zero_shot if score is not None]))
        axes.axvline(mean, color="0.4", linewidth=1, linestyle="--", label="zero-shot")
    axes.set_yticks(range(len(systems)), list(systems))
    axes.set_ylim(len(systems) - 0.5, -0.5)
    axes.set_xlabel("ACC (%)")
    axes.set_title("Mean score over all tasks after the last one", loc="left")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


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


def _look(index: int) -> tuple[str, str, str]:
    """Colour, marker and line of the series of that number; 56 of them differ."""
    dashes = DASHES[index // len(PALETTE) % len(DASHES)]
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)], dashes


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _drawn_from(comparison: Comparison) -> str:
    counts = sorted({len(comparison.of(system)) for system in comparison.sequential})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{each} sequence{'' if each == '1' else 's'} a method"
