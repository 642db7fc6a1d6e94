"""Lines over numbers: an area, a line with marks a series, and the name of each beside its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.charts.look import point
from pamctl.evaluation.page.charts.plot import (
    Frame,
    axis_across,
    axis_up,
    band,
    drawing,
    end_labels,
    path,
    room_for,
)
from pamctl.evaluation.page.charts.scale import Scale, bounds, ticks
from pamctl.evaluation.page.charts.text import LINE
from pamctl.evaluation.page.elements import Html, element


@dataclass(frozen=True)
class Point:
    """A place of a line, how far its band goes up and down, and what is told of it; None for no mark."""

    x: float
    y: float
    spread: float = 0.0
    told: str | None = None


@dataclass(frozen=True)
class Series:
    """A line: its name, the number of its look, and its points from left to right."""

    name: str
    look: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Axes:
    """What a line chart's axes say.

    Attributes:
        names: what stands below the area, by the number that it stands for.
        zero: whether the area always reaches down or up to 0.
    """

    x: str
    y: str
    names: Mapping[float, str]
    zero: bool = True


def line_chart(
    series: Sequence[Series], axes: Axes, told: str, width: float, *, height: float = 300, kind: str = ""
) -> Html:
    """Draw some series `width` pixels wide, and so high that their names do not cover one another."""
    drawn = [line for line in series if line.points]
    names = [line.name for line in drawn]
    frame = Frame(width, max(height, LINE * len(drawn) + 16), right=room_for(names, width * 0.36))
    reach = [value for line in drawn for at in line.points for value in (at.y - at.spread, at.y + at.spread)]
    low, high = bounds(reach, *([0.0] if axes.zero else []))
    x = frame.across(*_ends(axes.names, drawn))
    y = frame.up(low, high)
    places = [[(x(at.x), y(at.y)) for at in line.points] for line in drawn]
    ends = [(*place[-1], line.look, line.name) for line, place in zip(drawn, places, strict=True)]
    return drawing(
        frame,
        told,
        axis_across(frame, x, axes.names, axes.x),
        axis_up(frame, y, ticks(low, high, 6), axes.y),
        [_band(line, x, y) for line in drawn if any(at.spread for at in line.points)],
        end_labels(frame, ends),
        [_line(line, place) for line, place in zip(drawn, places, strict=True)],
        kind=kind,
    )


def _ends(names: Mapping[float, str], drawn: Sequence[Series]) -> tuple[float, float]:
    known = [*names, *(at.x for line in drawn for at in line.points)]
    return (min(known), max(known)) if known else (0, 1)


def _band(line: Series, x: Scale, y: Scale) -> Html:
    upper = [(x(at.x), y(at.y + at.spread)) for at in line.points]
    lower = [(x(at.x), y(at.y - at.spread)) for at in line.points]
    return band(upper, lower, line.look)


def _line(line: Series, places: Sequence[tuple[float, float]]) -> Html:
    marks = [
        point(*place, line.look, at.told)
        for place, at in zip(places, line.points, strict=True)
        if at.told is not None
    ]
    return element("g", path(places, line.look) if len(places) > 1 else None, marks, class_="series")
