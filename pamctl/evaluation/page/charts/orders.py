"""ACC of every system in each order of the tasks (the paper's Figure 1, right)."""

from collections.abc import Iterator, Sequence

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
Spreads = dict[tuple[str, str], Spread]


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
    zero_shot = mean_zero_shot(comparison)
    caption = _caption(comparison, spreads, zero_shot)
    drawn = [
        _chart(comparison, spreads, zero_shot, caption, width, kind)
        for width, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    ]
    yield figure_section(id, "Accuracy by order", caption, joined(*drawn), *order_table(comparison))


def mean_zero_shot(comparison: Comparison) -> float | None:
    """The base's mean score over the tasks; None if one is not known."""
    scores = [score for score in comparison.zero_shot().values() if score is not None]
    return sum(scores) / len(scores) if len(scores) == len(comparison.tasks) else None


def _chart(
    comparison: Comparison,
    spreads: Spreads,
    zero_shot: float | None,
    caption: str,
    width: float,
    kind: str,
) -> Html:
    systems, orders = comparison.systems, comparison.orders
    entries = [*orders, *(["zero-shot"] if zero_shot is not None else [])]
    legend, lines = _legend(entries, width)
    row = max(22.0, 8.0 * len(orders) + 8)
    left = min(width * 0.36, 14 + max(map(width_of, systems)))
    top = 8 + LEGEND * lines
    frame = Frame(width, top + row * len(systems) + 38, left=left, top=top)
    reach = [
        value for spread in spreads.values() for value in (spread.mean - spread.std, spread.mean + spread.std)
    ]
    low, high = bounds(reach, *([] if zero_shot is None else [zero_shot]))
    x = frame.across(low, high)
    named = {value: shown(value) for value in ticks(low, high, 6 if width < WIDE else 10)}
    middles = [top + row * (place + 0.5) for place in range(len(systems))]
    stripes = [_stripe(frame, middle, row) for middle in middles[1::2]]
    rows = [
        _row(system, orders, spreads, x, middle, row, frame)
        for system, middle in zip(systems, middles, strict=True)
    ]
    return drawing(
        frame,
        caption,
        stripes,
        axis_across(frame, x, named, "ACC (%)"),
        _zero_line(frame, x, zero_shot),
        rows,
        legend,
        kind=kind,
    )


def _row(
    system: str,
    orders: Sequence[str],
    spreads: Spreads,
    x: Scale,
    middle: float,
    height: float,
    frame: Frame,
) -> Html:
    name = element(
        "text",
        fitted(system, frame.left - 12),
        x=number(frame.left - 8),
        y=number(middle + 4),
        text_anchor="end",
        class_="label",
    )
    gap = (height - 8) / len(orders)
    marks = [
        _mark(system, order, index, spread, x, middle + (index - (len(orders) - 1) / 2) * gap)
        for index, order in enumerate(orders)
        if (spread := spreads.get((system, order))) is not None
    ]
    return joined(name, marks)


def _stripe(frame: Frame, middle: float, height: float) -> Html:
    top, width = number(middle - height / 2), number(frame.width)
    return element("rect", x=0, y=top, width=width, height=number(height), class_="stripe")


def _mark(system: str, order: str, index: int, spread: Spread, x: Scale, y: float) -> Html:
    whisker = element(
        "path",
        d=f"M{number(x(spread.mean - spread.std))} {number(y)}H{number(x(spread.mean + spread.std))}",
        class_=f"whisker {colour(index)}",
    )
    text = f"{system}, {order}: ACC {told(spread)} % (n = {spread.n})"
    return joined(whisker if spread.n > 1 else None, point(x(spread.mean), y, index, text))


def _zero_line(frame: Frame, x: Scale, zero_shot: float | None) -> Html | None:
    if zero_shot is None:
        return None
    place = number(x(zero_shot))
    return element(
        "path", d=f"M{place} {number(frame.top)}V{number(frame.height - frame.bottom)}", class_="reference"
    )


def _legend(entries: Sequence[str], width: float) -> tuple[Html, int]:
    """What the marks and the dashed line stand for, and how many lines of text that takes."""
    x, line, parts = 8.0, 0, []
    for index, entry in enumerate(entries):
        text = fitted(entry, width - 40)
        if x > 8 and x + 26 + width_of(text) > width:
            x, line = 8.0, line + 1
        y = 10 + LEGEND * line
        sample = (
            element("path", d=f"M{number(x - 4)} {number(y)}h12", class_="reference")
            if entry == "zero-shot" and index == len(entries) - 1
            else element("g", mark(x, y, index), class_=colour(index))
        )
        parts += [sample, element("text", text, x=number(x + 12), y=number(y + 4), class_="label")]
        x += 30 + width_of(text)
    return joined(*parts), line + 1


def _caption(comparison: Comparison, spreads: Spreads, zero_shot: float | None) -> str:
    lead = "Mean score over all tasks after the last one, a mark an order"
    whiskers = any(spread.n > 1 for spread in spreads.values())
    lead += ", the whisker one standard deviation over seeds." if whiskers else "."
    if zero_shot is not None:
        lead += f" The dashed line is the base without an adapter, {zero_shot:.1f} %."
    return " ".join([lead, *_widest(comparison, spreads)])


def _widest(comparison: Comparison, spreads: Spreads) -> Iterator[str]:
    """The system that the order matters most to, and least."""
    reach = {}
    for system in comparison.sequential:
        means = [spreads[system, order].mean for order in comparison.orders if (system, order) in spreads]
        if len(means) == len(comparison.orders) > 1:
            reach[system] = max(means) - min(means)
    if len(reach) > 1:
        most, least = max(reach, key=reach.__getitem__), min(reach, key=reach.__getitem__)
        yield (
            f"The order matters most to {most} ({reach[most]:.1f} points between its orders) and least to "
            f"{least} ({reach[least]:.1f})."
        )
