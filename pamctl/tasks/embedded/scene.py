"""Things scattered over the cells of a canvas, and what can be said of where they are."""

from dataclasses import dataclass

import numpy as np

from pamctl.tasks.embedded.canvas import COLORS, SHAPES, put_shape
from pamctl.tasks.embedded.draws import Draws

CELLS = tuple((row, column) for row in range(4) for column in range(4))


@dataclass(frozen=True)
class Thing:
    """A coloured shape in a cell (row, column) of the 4x4 grid."""

    shape: str
    color: str
    cell: tuple[int, int]

    @property
    def side(self) -> str:
        """`left` or `right` half of the image."""
        return "left" if self.cell[1] < 2 else "right"

    @property
    def height(self) -> str:
        """`top` or `bottom` half of the image."""
        return "top" if self.cell[0] < 2 else "bottom"


def scattered(draws: Draws, count: int) -> list[Thing]:
    """`count` things, no two of one shape, one colour or one cell."""
    shapes, colors = draws.sample(tuple(SHAPES), count), draws.sample(tuple(COLORS), count)
    cells = draws.sample(CELLS, count)
    return [Thing(*thing) for thing in zip(shapes, colors, cells, strict=True)]


def put_things(
    canvas: np.ndarray,
    draws: Draws,
    things: list[Thing],
    colors: dict[str, tuple[int, int, int]] = COLORS,
) -> None:
    """Draw every thing in the given palette."""
    for thing in things:
        put_shape(canvas, draws, thing.shape, thing.cell, colors[thing.color])
