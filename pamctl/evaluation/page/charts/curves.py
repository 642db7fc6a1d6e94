"""Training curves: the loss of every method by step, an area a task."""

import math
from collections.abc import Iterator, Sequence

from pamctl.evaluation.curves import Curve
from pamctl.evaluation.page.charts.lines import Axes, Point, Series, line_chart
from pamctl.evaluation.page.charts.scale import ticks
from pamctl.evaluation.page.elements import Html, element
from pamctl.evaluation.page.figure import NARROW, Looks, figure_section
from pamctl.evaluation.page.section import Section

MARKS = 6
"""How many points of a curve tell their value."""


def curves_figure(curves: Sequence[Curve], looks: Looks, tasks: Sequence[str], id: str) -> Iterator[Section]:
    """An area a task, nothing without curves; a loss that is not a number is not drawn.

    Of a method that was trained on a task several times the first order and seed is drawn.

    Args:
        tasks: those that come first, in this order.
    """
    first: dict[str, dict[str, Curve]] = {task: {} for task in tasks}
    for curve in curves:
        if curve.steps and all(map(math.isfinite, curve.loss)):
            first.setdefault(curve.task, {}).setdefault(curve.system, curve)
    first = {task: found for task, found in first.items() if found}
    if not first:
        return
    panels = [_panel(task, list(found.values()), looks) for task, found in first.items()]
    rows = [_row(task, curve) for task, found in first.items() for curve in found.values()]
    header = ("task and method", "order", "seed", "steps", "first loss", "last loss")
    drawn = element("div", panels, class_="panels")
    yield figure_section(id, "Training curves", _caption(curves, first), drawn, header, rows, kind=None)


def _panel(task: str, found: Sequence[Curve], looks: Looks) -> Html:
    series = [Series(curve.system, looks[curve.system], _points(curve)) for curve in found]
    most = max(curve.steps[-1] for curve in found)
    names = {step: f"{step:g}" for step in ticks(0, most, 4)}
    chart = line_chart(series, Axes("step", "loss", names), f"Loss by step on {task}", NARROW, height=240)
    return element("div", element("p", task, class_="panel-title"), chart, class_="panel")


def _points(curve: Curve) -> list[Point]:
    every = max(1, -(-len(curve.steps) // MARKS))
    last = len(curve.steps) - 1
    return [
        Point(
            float(step),
            loss,
            told=f"{curve.system} on {curve.task}, step {step}: loss {loss:.4g}"
            if (last - place) % every == 0
            else None,
        )
        for place, (step, loss) in enumerate(zip(curve.steps, curve.loss, strict=True))
    ]


def _row(task: str, curve: Curve) -> list[str]:
    seed = "-" if curve.seed is None else str(curve.seed)
    ends = (f"{curve.loss[0]:.4g}", f"{curve.loss[-1]:.4g}")
    return [f"{task}, {curve.system}", curve.order or "-", seed, str(curve.steps[-1]), *ends]


def _caption(curves: Sequence[Curve], first: dict[str, dict[str, Curve]]) -> str:
    shown = sum(map(len, first.values()))
    lead = (
        "Loss by optimiser step, terms of the method included; each point is the mean since the one before."
    )
    if shown == len(curves):
        return lead
    return f"{lead} Of {len(curves)} trainings the first order and seed of each method and task is drawn."
