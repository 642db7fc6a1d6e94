"""The figures of a report, as PNG and SVG files; the same results give the same bytes.

Files carry no dates, colours are told apart without colour vision, and axes name their units.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pamctl.evaluation.figures.by_order import accuracy_by_order
from pamctl.evaluation.figures.conflicts import conflicts_by_layer
from pamctl.evaluation.figures.curves import training_curves
from pamctl.evaluation.figures.drawing import STYLE, Looks, looks_of
from pamctl.evaluation.figures.forgetting import forgetting_over_time
from pamctl.evaluation.figures.matrices import matrices
from pamctl.evaluation.figures.tradeoff import stability_plasticity
from pamctl.evaluation.summary import Comparison, in_order_of_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pamctl.evaluation.report import Report

__all__ = ["NAMES", "Drawn", "write_figures"]

NAMES = (
    "forgetting",
    "accuracy-by-order",
    "stability-plasticity",
    "matrices",
    "conflicts-by-layer",
    "training-curves",
)
DOTS_PER_INCH = 150


class Drawn(NamedTuple):
    """The names of the figures that were written, without their ending.

    Attributes:
        by_comparison: those of each comparison.
        of_trainings: those of what happened while the adapters were trained.
    """

    by_comparison: tuple[tuple[str, ...], ...]
    of_trainings: tuple[str, ...]


def write_figures(report: "Report", folder: Path) -> Drawn:
    """Draw a report as PNG and SVG files into a folder."""
    import matplotlib

    systems = [system for comparison in report.comparisons for system in comparison.sequential]
    others = [conflicts.system for conflicts in report.conflicts] + [curve.system for curve in report.curves]
    looks = looks_of(in_order_of_methods([*systems, *others]))
    styled = cast("Any", {**matplotlib.rcParamsDefault, **STYLE})
    with warnings.catch_warnings(), matplotlib.rc_context(styled):
        # a box stands for a letter that the font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        return Drawn(
            tuple(
                _saved(_of_comparison(comparison, looks), folder, "" if number == 1 else f"-{number}")
                for number, comparison in enumerate(report.comparisons, start=1)
            ),
            _saved(_of_trainings(report, looks), folder),
        )


def _of_comparison(comparison: Comparison, looks: Looks) -> "dict[str, Figure]":
    drawn = {}
    if comparison.sequential and len(comparison.tasks) > 1:
        drawn["forgetting"] = forgetting_over_time(comparison, looks)
    drawn["accuracy-by-order"] = accuracy_by_order(comparison)
    if tradeoff := stability_plasticity(comparison, looks):
        drawn["stability-plasticity"] = tradeoff
    if comparison.sequential:
        drawn["matrices"] = matrices(comparison)
    return drawn


def _of_trainings(report: "Report", looks: Looks) -> "dict[str, Figure]":
    drawn = {}
    if report.conflicts:
        drawn["conflicts-by-layer"] = conflicts_by_layer(report.conflicts, looks)
    if report.curves:
        drawn["training-curves"] = training_curves(report.curves, looks, _tasks_of(report))
    return drawn


def _tasks_of(report: "Report") -> list[str]:
    return [task for comparison in report.comparisons for task in comparison.tasks]


def _saved(figures: "dict[str, Figure]", folder: Path, suffix: str = "") -> tuple[str, ...]:
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}{suffix}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        figure.set_layout_engine("none")  # everything is in its place now, and the second file is the same
        figure.savefig(folder / f"{name}{suffix}.svg", metadata={"Date": None, "Creator": None})
    return tuple(f"{name}{suffix}" for name in figures)
