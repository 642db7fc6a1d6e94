"""Names beside the marks of a scatter plot, so placed that they cover one another and the marks least."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pamctl.evaluation.page.charts.plot import Frame
from pamctl.evaluation.page.charts.text import fitted, width_of
from pamctl.evaluation.page.elements import Html, element, joined, number

AROUND = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
"""Where a name may stand: right, left, above, below its mark, and between these."""
DISTANCES = (8.0, 20.0, 34.0, 48.0, 64.0)
"""Pixels between a mark and its name, those tried first coming first."""
RADIUS = 5.0
HALF_LINE = 7.0
LONGEST = 0.32
"""The share of the drawing's width that a name may take."""


@dataclass(frozen=True)
class Box:
    """A rectangle that something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether both cover some place."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def is_free_of(self, others: Iterable["Box"]) -> bool:
        """Whether it covers no place that one of the others does."""
        return not any(map(self.meets, others))

    def within(self, other: "Box") -> bool:
        """Whether the other covers all of this."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Mark:
    """Where a mark is, and what it is called."""

    x: float
    y: float
    name: str

    @property
    def box(self) -> Box:
        """What the mark covers."""
        return Box(self.x - RADIUS, self.y - RADIUS, self.x + RADIUS, self.y + RADIUS)


@dataclass(frozen=True)
class Name:
    """The text beside a mark, and whether it stands so far off that a line must lead to it."""

    mark: Mark
    text: str
    box: Box
    far: bool

    def drawn(self) -> Html:
        """The name."""
        x = min(max(self.mark.x, self.box.left), self.box.right)
        y = min(max(self.mark.y, self.box.top), self.box.bottom)
        way = f"M{number(self.mark.x)} {number(self.mark.y)}L{number(x)} {number(y)}"
        leader = element("path", d=way, class_="leader") if self.far else None
        place = {"x": number(self.box.left), "y": number(self.box.bottom - 3)}
        return joined(leader, element("text", self.text, **place, class_="label"))


def placed_names(marks: Sequence[Mark], frame: Frame, taken: Sequence[Box] = ()) -> list[Name]:
    """A name for each mark, over no mark, no other name and nothing taken, as far as there is room."""
    area = Box(frame.left, frame.top, frame.width, frame.height - frame.bottom)
    covered = [*taken, *(mark.box for mark in marks)]
    names = []
    for mark in marks:
        name = _best(mark, fitted(mark.name, frame.width * LONGEST), area, covered)
        covered.append(name.box)
        names.append(name)
    return names


def _best(mark: Mark, text: str, area: Box, covered: Sequence[Box]) -> Name:
    """Of all places within the area that which covers the least, and of these the nearest."""
    tries = [
        Name(mark, text, _beside(mark, step, distance, width_of(text)), far=distance > DISTANCES[0])
        for distance in DISTANCES
        for step in AROUND
    ]
    within = [name for name in tries if name.box.within(area)] or tries
    return min(within, key=lambda name: sum(map(name.box.meets, covered)))


def _beside(mark: Mark, step: tuple[int, int], distance: float, wide: float) -> Box:
    across, down = step
    left = mark.x + across * distance - (wide / 2 if across == 0 else wide if across < 0 else 0)
    middle = mark.y + down * (distance + (4 if across == 0 else 0))
    return Box(left, middle - HALF_LINE, left + wide, middle + HALF_LINE)
