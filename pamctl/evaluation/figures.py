"""What the figures of a report show; the same results give the same bytes.

Files carry no dates, colours are told apart without colour vision (Okabe and Ito), and axes name their units.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
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
        drawn = {"accuracy-by-order": accuracy_by_order(comparison), "matrices": matrices(comparison)}
        if len(comparison.tasks) > 1:
            drawn = {"forgetting": forgetting_over_time(comparison), **drawn}
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}{suffix}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})
            figure.savefig(folder / f"{name}{suffix}.svg", metadata={"Date": None, "Creator": None})
    return [f"{name}{suffix}" for name in drawn]


def forgetting_over_time(comparison: Comparison) -> "Figure":
    """F_t against the number of tasks learned, a line a method; the band is one standard deviation."""
    figure, axes = _figure(6.4, 3.8)
    for index, system in enumerate(comparison.systems):
        spreads = comparison.forgetting(system)
        mean = np.array([np.nan if spread is None else spread.mean for spread in spreads])
        std = np.array([np.nan if spread is None else spread.std for spread in spreads])
        learned = np.arange(2, len(mean) + 2)
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        axes.plot(learned, mean, color=colour, marker=marker, markersize=4.5, label=system)
        axes.fill_between(learned, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(range(2, len(comparison.tasks) + 1))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("forgetting (points, lower is better)")
    axes.set_title(f"Forgetting over time\n{_drawn_from(comparison)}", loc="left")
    axes.legend(frameon=False)
    return figure


def accuracy_by_order(comparison: Comparison) -> "Figure":
    """ACC of every system in every order, the whisker one standard deviation over seeds."""
    systems, orders = comparison.systems, comparison.orders
    figure, axes = _figure(max(4.8, 1.2 + 0.36 * len(orders) * (len(systems) + 1)), 3.8)
    width = 0.8 / len(systems)
    for index, system in enumerate(systems):
        spreads = [comparison.spread(system, "ACC", order) for order in orders]
        places = np.arange(len(orders)) + (index - (len(systems) - 1) / 2) * width
        heights = [np.nan if spread is None else spread.mean for spread in spreads]
        whiskers = [np.nan if spread is None or spread.n < 2 else spread.std for spread in spreads]
        colour = PALETTE[index % len(PALETTE)]
        bars = axes.bar(
            places, heights, width * 0.92, yerr=whiskers, color=colour, label=system, ecolor="0.3"
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    zero_shot = list(comparison.zero_shot().values())
    if None not in zero_shot:
        mean = float(np.mean([score for score in zero_shot if score is not None]))
        axes.axhline(mean, color="0.4", linewidth=1, linestyle="--", label="zero-shot")
    axes.set_xticks(range(len(orders)), list(orders))
    axes.set_ylabel("ACC (%)")
    axes.margins(y=0.12)
    axes.set_title("Mean score over all tasks after the last one", loc="left")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def matrices(comparison: Comparison) -> "Figure":
    """The accuracy matrix of the first seed of every system (down) and order (across), zero-shot on top."""
    systems, orders = comparison.systems, comparison.orders
    size = 1.3 + 0.45 * len(comparison.tasks)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.8 + size * len(orders), 0.3 + size * len(systems)), layout="constrained")
    grid = figure.subplots(len(systems), len(orders), squeeze=False)
    image = None
    for row, system in enumerate(systems):
        for column, order in enumerate(orders):
            found = comparison.of(system, order)
            grid[row, column].set_axis_off()
            if found:
                image = _heat_map(grid[row, column], found[0].tasks, found[0].zero_shot, found[0].after)
                seed = "" if found[0].seed is None else f", seed {found[0].seed}"
                grid[row, column].set_title(f"{system}, {order}{seed}", loc="left")
    if image is not None:
        figure.colorbar(image, ax=grid, label="score (%)", shrink=0.6, aspect=40 if len(systems) > 1 else 20)
    return figure


def _heat_map(axes: "Axes", tasks: tuple[str, ...], zero_shot: np.ndarray, after: np.ndarray) -> "AxesImage":
    cells = np.vstack([zero_shot, after])
    axes.set_axis_on()
    image = axes.imshow(np.ma.masked_invalid(cells), vmin=0, vmax=100, cmap="cividis", aspect="equal")
    for (t, i), score in np.ndenumerate(cells):
        text = "n/a" if np.isnan(score) else f"{score:.0f}"
        dark = not np.isnan(score) and score < 55
        axes.text(i, t, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.axhline(0.5, color="white", linewidth=2)
    axes.set_xticks(
        range(len(tasks)), list(tasks), rotation=45, ha="right", rotation_mode="anchor", fontsize=7
    )
    axes.set_yticks(range(len(tasks) + 1), ["zero-shot", *(f"after {task}" for task in tasks)], fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _drawn_from(comparison: Comparison) -> str:
    counts = sorted({len(comparison.of(system)) for system in comparison.systems})
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean and std over {each} sequence{'' if each == '1' else 's'} a method"
