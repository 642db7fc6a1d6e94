"""An area with two axes, and what may be drawn in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.charts.look import colour, dashes, mark
from pamctl.evaluation.page.charts.scale import Scale, shown
from pamctl.evaluation.page.charts.text import LINE, fitted, width_of
from pamctl.evaluation.page.elements import Content, Html, element, joined, number


@dataclass(frozen=True)
class Frame:
    """The pixels of a drawing, and what is left free around its axes."""

    width: float
    height: float
    left: float = 40
    right: float = 12
    top: float = 24
    bottom: float = 38

    def across(self, low: float, high: float) -> Scale:
        """The scale of x."""
        return Scale(low, high, self.left, self.width - self.right)

    def up(self, low: float, high: float) -> Scale:
        """The scale of y, which grows upwards."""
        return Scale(low, high, self.height - self.bottom, self.top)


def drawing(frame: Frame, told: str, *parts: Content, kind: str = "") -> Html:
    """A whole figure; `told` is what someone who does not see it hears."""
    return element(
        "svg",
        joined(*parts),
        class_=f"chart {kind}".rstrip(),
        viewBox=f"0 0 {number(frame.width)} {number(frame.height)}",
        width=number(frame.width),
        height=number(frame.height),
        role="group",
        aria_label=told,
    )


def axis_across(frame: Frame, x: Scale, named: Mapping[float, str], label: str) -> Html:
    """The numbers below the area, a line up from each, and what they are."""
    bottom = frame.height - frame.bottom
    lines = [_line(x(value), frame.top, x(value), bottom, "grid") for value in named]
    texts = [_text(x(value), bottom + 15, text, "middle", "tick") for value, text in named.items()]
    title = _text((x.start + x.end) / 2, frame.height - 5, label, "middle", "axis")
    return joined(lines, texts, title)


def axis_up(frame: Frame, y: Scale, values: Sequence[float], label: str) -> Html:
    """The numbers left of the area, a line across from each, and above it what they are."""
    right = frame.width - frame.right
    lines = [
        _line(frame.left, y(value), right, y(value), "zero" if value == 0 else "grid") for value in values
    ]
    texts = [_text(frame.left - 6, y(value) + 4, shown(value), "end", "tick") for value in values]
    return joined(lines, texts, _text(0, 11, fitted(label, frame.width), "start", "axis"))


def path(places: Sequence[tuple[float, float]], index: int) -> Html:
    """The line of a series."""
    steps = " ".join(f"{number(x)} {number(y)}" for x, y in places)
    return element("path", d=f"M{steps}", class_=f"line {colour(index)} {dashes(index)}")


def band(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], index: int) -> Html:
    """The area between two lines."""
    steps = " ".join(f"{number(x)} {number(y)}" for x, y in [*upper, *lower[::-1]])
    return element("path", d=f"M{steps}z", class_=f"band {colour(index)}")


def end_labels(frame: Frame, ends: Sequence[tuple[float, float, int, str]], *, gap: float = LINE) -> Html:
    """The name of each series beside its end (x, y), moved apart where they would cover one another."""
    right = frame.width - frame.right
    order = sorted(range(len(ends)), key=lambda index: ends[index][1])
    places = spread_out([ends[index][1] for index in order], gap, 8, frame.height - 6)
    parts = []
    for index, place in zip(order, places, strict=True):
        x, y, series, name = ends[index]
        parts.append(
            element(
                "g",
                _line(x + 6, y, right + 10, place, "leader"),
                mark(right + 17, place, series),
                _text(right + 26, place + 4, fitted(name, frame.right - 28), "start", "label"),
                class_=f"name {colour(series)}",
            )
        )
    return joined(*parts)


def room_for(names: Sequence[str], most: float) -> float:
    """Pixels that `end_labels` needs right of the area."""
    return min(most, 32 + max(map(width_of, names), default=0))


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending places moved as little as needs be, so that they are `gap` apart and within low and high."""
    if len(places) > 1:
        gap = min(gap, (high - low) / (len(places) - 1))
    found: list[list[float]] = []  # clusters: the places that were asked for
    centres: list[float] = []
    for place in places:
        found.append([place])
        centres.append(_centre([place], gap, low, high))
        while len(found) > 1 and centres[-1] - centres[-2] < gap * (len(found[-1]) + len(found[-2])) / 2:
            last = found.pop()
            found[-1] = [*found[-1], *last]
            centres.pop()
            centres[-1] = _centre(found[-1], gap, low, high)
    return [
        centre + (index - (len(cluster) - 1) / 2) * gap
        for centre, cluster in zip(centres, found, strict=True)
        for index in range(len(cluster))
    ]


def _centre(cluster: list[float], gap: float, low: float, high: float) -> float:
    half = gap * (len(cluster) - 1) / 2
    return min(max(sum(cluster) / len(cluster), low + half), high - half)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("path", d=f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", class_=kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> Html:
    return element(
        "text",
        text,
        x=number(x),
        y=number(y),
        text_anchor=None if anchor == "start" else anchor,
        class_=kind,
    )
