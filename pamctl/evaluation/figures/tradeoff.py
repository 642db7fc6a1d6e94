"""The trade-off between stability and plasticity: what a method keeps against what it learns.

Plasticity is A_m, the score on each task right after learning it, of the state that is kept; stability
is BWT. By BWT (T - 1) / T = ACC - A_m the points of equal ACC lie on straight lines, which are drawn.
"""

from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.figures.drawing import ROW, WIDTH, Looks, beside, blank, drawn_from, short
from pamctl.evaluation.summary import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = (1, 2, 5, 10, 20, 50)
"""Between two lines of equal ACC, in points."""
MOST_LINES = 10


def stability_plasticity(comparison: Comparison, looks: Looks) -> "Figure | None":
    """BWT against A_m, a mark a method, whiskers one standard deviation; None where no method has both."""
    found = [
        (system, learned, kept)
        for system in comparison.sequential
        if (learned := comparison.spread(system, "A_m")) and (kept := comparison.spread(system, "BWT"))
    ]
    if not found:
        return None
    figure, axes = blank(WIDTH, max(4.2, 1.2 + ROW * len(found)))
    for system, learned, kept in found:
        look = looks[system]
        axes.errorbar(
            learned.mean,
            kept.mean,
            xerr=learned.std,
            yerr=kept.std,
            color=look.colour,
            fmt=look.marker,
            markersize=8.5 if look.marker == "*" else 7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=0.8,
            ecolor=(look.colour, 0.45),
            label=short(system),
        )
    axes.margins(0.1)
    _equal_accuracy(axes, len(comparison.tasks))
    axes.set_xlabel("plasticity: A_m, score right after learning (%)")
    axes.set_ylabel("stability: BWT (points)")
    axes.set_title(
        f"Stability and plasticity\nmean and std over {drawn_from(comparison)}; grey lines: equal ACC",
        loc="left",
    )
    beside(axes)
    return figure


def _equal_accuracy(axes: "Axes", count: int) -> None:
    """Lines along which ACC is the same, each named at its end, behind the marks."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    share = (count - 1) / count
    least, most = left + low * share, right + high * share
    step = next((step for step in STEPS if (most - least) / step <= MOST_LINES), STEPS[-1])
    for accuracy in np.arange(np.ceil(least / step) * step, most, step):
        ends = [(x, (accuracy - x) / share) for x in (left, right)]
        axes.plot(*zip(*ends, strict=True), color="0.85", linewidth=0.8, zorder=0)
        # where the line leaves the axes at the top or on the left
        x = max(left, accuracy - high * share)
        axes.annotate(
            f"{accuracy + 0.0:g}",
            (x, (accuracy - x) / share),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="0.55",
            zorder=0,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
