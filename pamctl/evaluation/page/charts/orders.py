"""ACC of every system in each order of the tasks (the paper's Figure 1, right)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.charts.extremes import extremes
from pamctl.evaluation.page.charts.forgetting import told
from pamctl.evaluation.page.charts.look import colour, mark, point
from pamctl.evaluation.page.charts.plot import Frame, axis_across, drawing
from pamctl.evaluation.page.charts.scale import Scale, bounds, shown, ticks
from pamctl.evaluation.page.charts.text import fitted, width_of
from pamctl.evaluation.page.elements import Html, element, joined, number
from pamctl.evaluation.page.figure import NARROW, WIDE, figure_section
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.summary import Comparison, Spread
from pamctl.evaluation.tables import order_table

LEGEND = 17.0
"""Pixels of a line of the legend."""
ZERO_SHOT = "zero-shot"


def orders_figure(comparison: Comparison, id: str) -> Iterator[Section]:
    """A row a system, a mark an order; nothing where no ACC is known."""
    spreads = {
        (system, order): spread
        for system in comparison.systems
        for order in comparison.orders
        if (spread := comparison.spread(system, "ACC", order)) is not None
    }
    if not spreads:
        return
    chart = Chart(comparison.systems, comparison.orders, spreads, _zero_shot(comparison))
    caption = _caption(chart, comparison.sequential)
    drawn = [chart.drawn(caption, width, kind) for width, kind in ((WIDE, "wide"), (NARROW, "narrow"))]
    yield figure_section(id, "Accuracy by order", caption, joined(*drawn), *order_table(comparison))


@dataclass(frozen=True)
class Chart:
    """What is drawn: ACC by system and order, and of the base."""

    systems: Sequence[str]
    orders: Sequence[str]
    spreads: Mapping[tuple[str, str], Spread]
    zero_shot: float | None

    @property
    def row(self) -> float:
        """Pixels of a system's row."""
        return max(22.0, 8.0 * len(self.orders) + 8)

    def drawn(self, caption: str, width: float, kind: str) -> Html:
        """The figure, `width` pixels wide."""
        legend, lines = _legend(self.orders, width, zero_shot=self.zero_shot is not None)
        top = 8 + LEGEND * lines
        left = min(width * 0.36, 14 + max(map(width_of, self.systems)))
        frame = Frame(width, top + self.row * len(self.systems) + 38, left=left, top=top)
        x = frame.across(*self._bounds())
        named = {value: shown(value) for value in ticks(x.low, x.high, 6 if width < WIDE else 10)}
        middles = [top + self.row * (place + 0.5) for place in range(len(self.systems))]
        stripes = [self._stripe(frame, middle) for middle in middles[1::2]]
        axis = axis_across(frame, x, named, "ACC (%)")
        rows = [self._row(*pair, frame, x) for pair in zip(self.systems, middles, strict=True)]
        return drawing(frame, caption, stripes, axis, self._base(frame, x), rows, legend, kind=kind)

    def _bounds(self) -> tuple[float, float]:
        reach = [each.mean + sign * each.std for each in self.spreads.values() for sign in (-1, 1)]
        return bounds(reach, *([] if self.zero_shot is None else [self.zero_shot]))

    def _stripe(self, frame: Frame, middle: float) -> Html:
        top, width, height = (number(length) for length in (middle - self.row / 2, frame.width, self.row))
        return element("rect", x=0, y=top, width=width, height=height, class_="stripe")

    def _base(self, frame: Frame, x: Scale) -> Html | None:
        if self.zero_shot is None:
            return None
        way = f"M{number(x(self.zero_shot))} {number(frame.top)}V{number(frame.height - frame.bottom)}"
        return element("path", d=way, class_="reference")

    def _row(self, system: str, middle: float, frame: Frame, x: Scale) -> Html:
        place = {"x": number(frame.left - 8), "y": number(middle + 4)}
        text = fitted(system, frame.left - 12)
        name = element("text", text, **place, text_anchor="end", class_="label")
        gap, first = (self.row - 8) / len(self.orders), (len(self.orders) - 1) / 2
        marks = [
            self._mark(system, index, x, middle + (index - first) * gap) for index in range(len(self.orders))
        ]
        return joined(name, marks)

    def _mark(self, system: str, index: int, x: Scale, y: float) -> Html | None:
        spread = self.spreads.get((system, self.orders[index]))
        if spread is None:
            return None
        way = f"M{number(x(spread.mean - spread.std))} {number(y)}H{number(x(spread.mean + spread.std))}"
        whisker = element("path", d=way, class_=f"whisker {colour(index)}") if spread.n > 1 else None
        text = f"{system}, {self.orders[index]}: ACC {told(spread)} % (n = {spread.n})"
        return joined(whisker, point(x(spread.mean), y, index, text))


def _legend(orders: Sequence[str], width: float, *, zero_shot: bool) -> tuple[Html, int]:
    """What the marks and the dashed line stand for, and how many lines of text that takes."""
    x, line, parts = 8.0, 0, []
    for index, entry in enumerate([*orders, *([ZERO_SHOT] if zero_shot else [])]):
        text = fitted(entry, width - 40)
        if x > 8 and x + 26 + width_of(text) > width:
            x, line = 8.0, line + 1
        y = 10 + LEGEND * line
        if index < len(orders):
            sample = element("g", mark(x, y, index), class_=colour(index))
        else:
            sample = element("path", d=f"M{number(x - 4)} {number(y)}h12", class_="reference")
        parts += [sample, element("text", text, x=number(x + 12), y=number(y + 4), class_="label")]
        x += 30 + width_of(text)
    return joined(*parts), line + 1


def _zero_shot(comparison: Comparison) -> float | None:
    """The base's mean score over the tasks; None if one is not known."""
    scores = [score for score in comparison.zero_shot().values() if score is not None]
    return sum(scores) / len(scores) if len(scores) == len(comparison.tasks) else None


def _caption(chart: Chart, sequential: Sequence[str]) -> str:
    lead = "Mean score over all tasks after the last one, a mark an order"
    whiskers = any(spread.n > 1 for spread in chart.spreads.values())
    lead += ", the whisker one standard deviation over seeds." if whiskers else "."
    if chart.zero_shot is not None:
        lead += f" The dashed line is the base without an adapter, {chart.zero_shot:.1f} %."
    return " ".join([lead, *_widest(chart, sequential)])


def _widest(chart: Chart, sequential: Sequence[str]) -> Iterator[str]:
    """The systems that the order matters most to, and least."""
    reach = {}
    for system in sequential:
        known = [chart.spreads.get((system, order)) for order in chart.orders]
        means = [spread.mean for spread in known if spread is not None]
        if len(means) == len(chart.orders) > 1:
            reach[system] = max(means) - min(means)
    if len(reach) < 2:
        return
    least, most = extremes(reach)
    if least == most:
        who = "every method" if len(reach) == len(sequential) else least.systems
        yield f"The order matters the same to {who} ({least.number} points between orders)."
        return
    yield (
        f"The order matters most to {most.systems} ({most.number} points between orders) and least to "
        f"{least.systems} ({least.number})."
    )
