"""Stability against plasticity: what each system keeps of old tasks, and how well it learns new ones.

Since BWT (T - 1) / T = ACC - A_m, systems of the same ACC lie on a straight line, which the figure draws.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pamctl.evaluation.page.charts.forgetting import told
from pamctl.evaluation.page.charts.look import point
from pamctl.evaluation.page.charts.nearby import Box, Mark, placed_names
from pamctl.evaluation.page.charts.plot import Frame, axis_across, axis_up, drawing
from pamctl.evaluation.page.charts.scale import Scale, bounds, shown, ticks
from pamctl.evaluation.page.charts.text import FONT, width_of
from pamctl.evaluation.page.elements import Html, element, joined, number
from pamctl.evaluation.page.figure import NARROW, WIDE, Looks, figure_section
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.summary import Comparison, Spread

CAPTION = (
    "Right is better at learning (A_m), up is better at keeping (BWT). Along a dashed line ACC is the same, "
    "and the further to the upper right the line, the higher."
)
ROOM = 0.12
"""The share of the range that is left free around the marks."""
Known = Mapping[str, tuple[Spread, Spread]]
"""A_m and BWT of each system."""


def balance_figure(comparison: Comparison, looks: Looks, id: str) -> Iterator[Section]:
    """A mark a system; nothing where none has both metrics."""
    known = {
        system: (learned, kept)
        for system in comparison.sequential
        if (learned := comparison.spread(system, "A_m")) and (kept := comparison.spread(system, "BWT"))
    }
    if not known:
        return
    tasks = len(comparison.tasks)
    drawn = [
        _chart(known, looks, tasks, Frame(WIDE, 380), "wide"),
        _chart(known, looks, tasks, Frame(NARROW, 360), "narrow"),
    ]
    rows = [[system, told(learned), told(kept)] for system, (learned, kept) in known.items()]
    header = ("method", "A_m", "BWT")
    yield figure_section(id, "Stability and plasticity", CAPTION, joined(*drawn), header, rows)


def _chart(known: Known, looks: Looks, tasks: int, frame: Frame, kind: str) -> Html:
    across = bounds((learned.mean for learned, _ in known.values()), room=ROOM)
    up = bounds((kept.mean for _, kept in known.values()), room=ROOM)
    x, y = frame.across(*across), frame.up(*up)
    values = {value: shown(value) for value in ticks(*across, 4 if kind == "narrow" else 8)}
    marks = [Mark(x(learned.mean), y(kept.mean), system) for system, (learned, kept) in known.items()]
    lines = list(_same_acc(x, y, tasks))
    free = [line for line in lines if line.box.is_free_of(mark.box for mark in marks)]
    names = placed_names(marks, frame, [line.box for line in free])
    named = [line for line in free if line.box.is_free_of(name.box for name in names)]
    return drawing(
        frame,
        CAPTION,
        axis_across(frame, x, values, "A_m: score when learned (%, plasticity)"),
        axis_up(frame, y, ticks(*up, 6), "BWT: change since learned (points, stability)"),
        [line.way for line in lines],
        [line.name for line in named],
        [name.drawn() for name in names],
        [point(at.x, at.y, looks[at.name], _told(at.name, *known[at.name])) for at in marks],
        kind=kind,
    )


def _told(system: str, learned: Spread, kept: Spread) -> str:
    return f"{system}: A_m {told(learned)}, BWT {told(kept)} (n = {kept.n})"


class _Line(NamedTuple):
    """A line of the same ACC, its name at the left end, None without room for it, and what that covers."""

    way: Html
    name: Html | None
    box: Box


def _same_acc(x: Scale, y: Scale, tasks: int) -> Iterator[_Line]:
    share = (tasks - 1) / tasks
    for acc in ticks(x.low + y.low * share, x.high + y.high * share, 6):
        # Where BWT = (ACC - A_m) T / (T - 1) enters and leaves the area.
        first, last = max(x.low, acc - y.high * share), min(x.high, acc - y.low * share)
        if last - first < (x.high - x.low) / 100:
            continue
        left, top = x(first), y((acc - first) / share)
        way = f"M{number(left)} {number(top)}L{number(x(last))} {number(y((acc - last) / share))}"
        text, low = f"ACC {shown(acc)}", max(top + 4, y.end + FONT)
        box = Box(left + 4, low - FONT, left + 4 + width_of(text), low)
        name = element("text", text, x=number(box.left), y=number(low), class_="tick")
        named = box.right < x.end and low < y.start
        yield _Line(element("path", d=way, class_="reference"), name if named else None, box)
