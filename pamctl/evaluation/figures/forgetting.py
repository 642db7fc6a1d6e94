"""Forgetting over time: the paper's figure 1, left."""

from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.figures.drawing import FEW, ROW, WIDTH, Looks, beside, blank, drawn_from, short
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forgetting_over_time(comparison: Comparison, looks: Looks) -> "Figure":
    """F_t against the number of tasks learned, a line a method; the band is one standard deviation.

    The bands are left out where there are too many to be told apart.
    """
    systems = comparison.sequential
    figure, axes = blank(WIDTH, max(3.8, 1.2 + ROW * len(systems)))
    for index, system in enumerate(systems):
        spreads = comparison.forgetting(system)
        mean = np.array([np.nan if spread is None else spread.mean for spread in spreads])
        std = np.array([np.nan if spread is None else spread.std for spread in spreads])
        learned, look = np.arange(2.0, len(mean) + 2), looks[system]
        if len(mean) == 1:
            learned += 0.05 * (index - (len(systems) - 1) / 2)
        axes.plot(
            learned,
            mean,
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            markersize=4.5,
            label=short(system),
        )
        if len(systems) <= FEW and len(mean) > 1:
            axes.fill_between(learned, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)
        elif len(systems) <= FEW:  # a band has no width there
            axes.errorbar(learned, mean, yerr=std, color=look.colour, elinewidth=0.8, capsize=3)
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(range(2, len(comparison.tasks) + 1))
    if len(comparison.tasks) == 2:
        axes.set_xlim(1.5, 2.5)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("forgetting (points, lower is better)")
    drawn = "mean and std" if len(systems) <= FEW else "mean"
    axes.set_title(f"Forgetting over time\n{drawn} over {drawn_from(comparison)}", loc="left")
    beside(axes)
    return figure
