"""Forgetting over time: what is lost of earlier tasks as more are learned (the paper's Figure 1, left)."""

from collections.abc import Iterator, Mapping

from pamctl.evaluation.page.charts.extremes import extremes
from pamctl.evaluation.page.charts.lines import Axes, Point, Series, line_chart
from pamctl.evaluation.page.elements import joined
from pamctl.evaluation.page.figure import NARROW, WIDE, Looks, figure_section
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.summary import Comparison, Spread
from pamctl.evaluation.tables import NOT_AVAILABLE

FEW = 6
"""Up to so many systems are drawn with bands."""


def forgetting_figure(comparison: Comparison, looks: Looks, id: str) -> Iterator[Section]:
    """A line a system; nothing where no task comes after another."""
    lost = {system: comparison.forgetting(system) for system in comparison.sequential}
    if not lost or len(comparison.tasks) < 2:
        return
    count = len(comparison.tasks)
    series = [
        Series(system, looks[system], _points(system, spreads, banded=len(lost) <= FEW))
        for system, spreads in lost.items()
    ]
    names = {float(learned): str(learned) for learned in range(2, count + 1)}
    axes = Axes("tasks learned", "forgetting (points, lower is better)", names)
    caption = _caption(lost, count)
    drawn = [
        line_chart(series, axes, caption, width, height=height, kind=kind)
        for width, height, kind in ((WIDE, 380, "wide"), (NARROW, 300, "narrow"))
    ]
    rows = [
        [system, *(NOT_AVAILABLE if spread is None else told(spread) for spread in spreads)]
        for system, spreads in lost.items()
    ]
    header = ["method", *(f"{learned} tasks" for learned in range(2, count + 1))]
    yield figure_section(id, "Forgetting over time", caption, joined(*drawn), header, rows)


def told(spread: Spread) -> str:
    """Mean and spread in words of digits."""
    return f"{spread.mean:.2f}" if spread.n == 1 else f"{spread.mean:.2f} ± {spread.std:.2f}"


def _points(system: str, spreads: list[Spread | None], *, banded: bool) -> list[Point]:
    return [
        Point(
            float(learned),
            spread.mean,
            spread.std if banded else 0.0,
            f"{system}, {learned} tasks learned: {told(spread)} points forgotten (n = {spread.n})",
        )
        for learned, spread in enumerate(spreads, start=2)
        if spread is not None
    ]


def _caption(lost: Mapping[str, list[Spread | None]], count: int) -> str:
    lead = (
        "Points lost, on average over the tasks learned so far, since each was learned; the mean over orders "
        "and seeds"
    )
    banded = len(lost) <= FEW and any(each.n > 1 for spreads in lost.values() for each in spreads if each)
    lead += ", the band one standard deviation." if banded else "."
    last = {system: spreads[-1].mean for system, spreads in lost.items() if spreads[-1] is not None}
    if len(last) < 2:
        return lead
    least, most = extremes(last)
    if least == most:
        who = "every method" if len(last) == len(lost) else least.systems
        return f"{lead} After {count} tasks the same is forgotten by {who} ({least.number})."
    return (
        f"{lead} After {count} tasks the least is forgotten by {least.systems} ({least.number}), "
        f"the most by {most.systems} ({most.number})."
    )
