"""Accuracy by order: the paper's figure 1, right."""

from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.figures.drawing import WIDTH, beside, blank, look, short
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_by_order(comparison: Comparison) -> "Figure":
    """ACC of every system (down), a mark an order; the whisker is one standard deviation over seeds."""
    systems, orders = comparison.systems, comparison.orders
    figure, axes = blank(WIDTH, max(2.6, 1.3 + max(0.3, 0.11 * (len(orders) + 1)) * len(systems)))
    for index, order in enumerate(orders):
        spreads = [comparison.spread(system, "ACC", order) for system in systems]
        places = np.arange(len(systems)) + (index - (len(orders) - 1) / 2) * 0.7 / len(orders)
        means = [np.nan if spread is None else spread.mean for spread in spreads]
        whiskers = [np.nan if spread is None or spread.n < 2 else spread.std for spread in spreads]
        mark = look(index)
        axes.errorbar(
            means,
            places,
            xerr=whiskers,
            color=mark.colour,
            fmt=mark.marker,
            markersize=4.5,
            elinewidth=1,
            label=short(order),
        )
    for place in range(1, len(systems), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    zero_shot = [score for score in comparison.zero_shot().values() if score is not None]
    if len(zero_shot) == len(comparison.tasks):
        axes.axvline(float(np.mean(zero_shot)), color="0.4", linewidth=1, linestyle="--", label="zero-shot")
    axes.set_yticks(range(len(systems)), [short(system) for system in systems])
    axes.set_ylim(len(systems) - 0.5, -0.5)
    axes.set_xlabel("ACC (%)")
    axes.set_title("Mean score over all tasks after the last one", loc="left")
    beside(axes)
    return figure
