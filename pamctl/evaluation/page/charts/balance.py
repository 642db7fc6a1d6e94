"""Stability against plasticity: what each system keeps of old tasks, and how well it learns new ones.

Since BWT (T - 1) / T = ACC - A_m, systems of the same ACC lie on a straight line, which the figure draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.charts.forgetting import told
from pamctl.evaluation.page.charts.look import point
from pamctl.evaluation.page.charts.plot import Frame, axis_across, axis_up, drawing
from pamctl.evaluation.page.charts.scale import Scale, bounds, shown, ticks
from pamctl.evaluation.page.charts.text import FONT, fitted, width_of
from pamctl.evaluation.page.elements import Html, element, joined, number
from pamctl.evaluation.page.figure import NARROW, WIDE, Looks, figure_section
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.summary import Comparison, Spread

CAPTION = (
    "Right is better at learning (A_m), up is better at keeping (BWT). Along a dashed line ACC is the same, "
    "and the further to the upper right the line, the higher."
)
AROUND = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
"""Where a name may stand: right, left, above, below its mark, and between these."""
DISTANCES = (8.0, 20.0, 34.0, 48.0, 64.0)


@dataclass(frozen=True)
class Box:
    """A rectangle that something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Place:
    """A system: what is known of it, and where its mark is."""

    system: str
    look: int
    learned: Spread
    kept: Spread
    x: float
    y: float


@dataclass(frozen=True)
class Name:
    """Where the name of a mark stands, and whether that is far from it."""

    at: Place
    text: str
    box: Box
    far: bool


def balance_figure(comparison: Comparison, looks: Looks, id: str) -> Iterator[Section]:
    """A mark a system; nothing where none has both metrics."""
    known = {
        system: (learned, kept)
        for system in comparison.sequential
        if (learned := comparison.spread(system, "A_m")) and (kept := comparison.spread(system, "BWT"))
    }
    if not known:
        return
    drawn = [
        _chart(known, looks, len(comparison.tasks), *size)
        for size in ((WIDE, 380.0, "wide"), (NARROW, 360.0, "narrow"))
    ]
    rows = [[system, told(learned), told(kept)] for system, (learned, kept) in known.items()]
    yield figure_section(
        id, "Stability and plasticity", CAPTION, joined(*drawn), ("method", "A_m", "BWT"), rows
    )


def _chart(
    known: dict[str, tuple[Spread, Spread]], looks: Looks, tasks: int, width: float, height: float, kind: str
) -> Html:
    frame = Frame(width, height)
    across = bounds((learned.mean for learned, _ in known.values()), room=0.12)
    up = bounds((kept.mean for _, kept in known.values()), room=0.12)
    x, y = frame.across(*across), frame.up(*up)
    places = [
        Place(system, looks[system], learned, kept, x(learned.mean), y(kept.mean))
        for system, (learned, kept) in known.items()
    ]
    named = {value: shown(value) for value in ticks(*across, 4 if kind == "narrow" else 8)}
    lines = list(_same_acc(x, y, tasks))
    taken = [box for _, box in lines]
    return drawing(
        frame,
        CAPTION,
        axis_across(frame, x, named, "A_m: score when learned (%, plasticity)"),
        axis_up(frame, y, ticks(*up, 6), "BWT: change since learned (points, stability)"),
        [line for line, _ in lines],
        [_name(name) for name in placed_names(places, frame, taken)],
        [_mark(place) for place in places],
        kind=kind,
    )


def _mark(place: Place) -> Html:
    text = f"{place.system}: A_m {told(place.learned)}, BWT {told(place.kept)} (n = {place.kept.n})"
    return point(place.x, place.y, place.look, text)


def _same_acc(x: Scale, y: Scale, tasks: int) -> Iterator[tuple[Html, Box]]:
    """Lines of the same ACC within the area, each with its name at the end and what that covers."""
    share = (tasks - 1) / tasks
    lowest, highest = x.low + y.low * share, x.high + y.high * share
    for acc in ticks(lowest, highest, 6):
        inside = [
            (value, (acc - value) / share)
            for value in (x.low, x.high, *(acc - edge * share for edge in (y.low, y.high)))
            if x.low - 1e-9 <= value <= x.high + 1e-9
            and y.low - 1e-9 <= (acc - value) / share <= y.high + 1e-9
        ]
        if len(inside) < 2:
            continue
        (x1, y1), (x2, y2) = min(inside), max(inside)
        start, end = (x(x1), y(y1)), (x(x2), y(y2))
        text = f"ACC {shown(acc)}"
        left, bottom = start[0] + 4, max(start[1] + 4, y.end + FONT)
        box = Box(left, bottom - FONT, left + width_of(text), bottom)
        line = element(
            "path",
            d=f"M{number(start[0])} {number(start[1])}L{number(end[0])} {number(end[1])}",
            class_="reference",
        )
        name = element("text", text, x=number(left), y=number(bottom), class_="tick")
        if box.right < x.end and box.bottom < y.start:
            yield joined(line, name), box
        else:
            yield line, Box(0, 0, 0, 0)


def placed_names(places: Sequence[Place], frame: Frame, taken: Sequence[Box]) -> list[Name]:
    """A name near each mark, over no mark, no other name and nothing taken, as far as there is room."""
    covered = [*taken, *(Box(at.x - 5, at.y - 5, at.x + 5, at.y + 5) for at in places)]
    names = []
    for at in places:
        text = fitted(at.system, frame.width * 0.32)
        box, far = _free_place(at, width_of(text), frame, covered)
        covered.append(box)
        names.append(Name(at, text, box, far))
    return names


def _name(name: Name) -> Html:
    """The name, with a line to its mark where it stands far off."""
    at, box = name.at, name.box
    leader = element(
        "path",
        d=f"M{number(at.x)} {number(at.y)}L{number(_nearest(at.x, box.left, box.right))} "
        f"{number(_nearest(at.y, box.top, box.bottom))}",
        class_="leader",
    )
    text = element("text", name.text, x=number(box.left), y=number(box.bottom - 3), class_="label")
    return joined(leader if name.far else None, text)


def _free_place(at: Place, wide: float, frame: Frame, covered: Sequence[Box]) -> tuple[Box, bool]:
    """Where a name `wide` pixels long covers the least, and whether that is far from its mark."""
    area = Box(frame.left, frame.top, frame.width, frame.height - frame.bottom)
    tries = [(_beside(at, step, distance, wide), distance) for distance in DISTANCES for step in AROUND]
    inside = [
        (box, distance)
        for box, distance in tries
        if box.left >= area.left
        and box.right <= area.right
        and box.top >= area.top
        and box.bottom <= area.bottom
    ] or tries
    box, distance = min(inside, key=lambda place: (sum(map(place[0].meets, covered)), place[1]))
    return box, distance > DISTANCES[0]


def _beside(at: Place, step: tuple[int, int], distance: float, wide: float) -> Box:
    across, down = step
    left = at.x + across * distance - (wide / 2 if across == 0 else wide if across < 0 else 0)
    middle = at.y + down * (distance + (4 if across == 0 else 0))
    return Box(left, middle - 7, left + wide, middle + 7)


def _nearest(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
