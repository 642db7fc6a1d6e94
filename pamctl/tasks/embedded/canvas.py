"""Drawing on a 32x32 image of 4x4 cells: shapes, text, bars, plates, blur; integer arithmetic only."""

import numpy as np

from pamctl.tasks.embedded.draws import Draws

SIDE = 32
CELL = 8

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 40),
    "purple": (160, 50, 200),
    "orange": (245, 140, 30),
    "cyan": (40, 210, 220),
    "white": (245, 245, 245),
}

_SHAPES = {
    "circle": "..###.. .#####. ####### ####### ####### .#####. ..###..",
    "square": "####### ####### ####### ####### ####### ####### #######",
    "triangle": "...#... ...#... ..###.. ..###.. .#####. .#####. #######",
    "ring": "..###.. .##.##. ##...## #.....# ##...## .##.##. ..###..",
    "cross": "...#... ...#... ...#... ####### ...#... ...#... ...#...",
    "arrow": "...#... ..###.. .#####. ####### ..###.. ..###.. ..###..",
}

_GLYPHS = {
    "a": ".###. #...# #...# ##### #...# #...# #...#",
    "c": ".#### #.... #.... #.... #.... #.... .####",
    "e": "##### #.... #.... ####. #.... #.... #####",
    "h": "#...# #...# #...# ##### #...# #...# #...#",
    "k": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "l": "#.... #.... #.... #.... #.... #.... #####",
    "m": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "n": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "o": ".###. #...# #...# #...# #...# #...# .###.",
    "p": "####. #...# #...# ####. #.... #.... #....",
    "r": "####. #...# #...# ####. #.#.. #..#. #...#",
    "t": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "u": "#...# #...# #...# #...# #...# #...# .###.",
    "x": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
}


def _bitmap(rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows.split()])


SHAPES = {name: _bitmap(rows) for name, rows in _SHAPES.items()}
GLYPHS = {letter: _bitmap(rows) for letter, rows in _GLYPHS.items()}
LETTERS = tuple(GLYPHS)


def plain(color: tuple[int, int, int]) -> np.ndarray:
    """A canvas of one colour, int16 (32, 32, 3)."""
    return np.full((SIDE, SIDE, 3), color, np.int16)


def striped(draws: Draws) -> np.ndarray:
    """A dim textured canvas: stripes or checks of two shades."""
    canvas = plain((30, 30, 30))
    shade = tuple(50 + draws.below(70) for _ in range(3))
    rows, columns = np.indices((SIDE, SIDE))
    width = 2 + draws.below(3)
    pattern = draws.pick((rows // width, columns // width, rows // width + columns // width))
    canvas[pattern % 2 == 0] = shade
    return canvas


def stamp(canvas: np.ndarray, bitmap: np.ndarray, row: int, column: int, color: tuple[int, int, int]) -> None:
    """Paint the set pixels of a bitmap with its top left corner at (row, column)."""
    height, width = bitmap.shape
    canvas[row : row + height, column : column + width][bitmap] = color


def put_shape(
    canvas: np.ndarray, draws: Draws, shape: str, cell: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """Draw a shape in one cell (row, column), off its corner by at most one pixel."""
    row, column = cell
    stamp(canvas, SHAPES[shape], row * CELL + draws.below(2), column * CELL + draws.below(2), color)


def put_large_shape(canvas: np.ndarray, draws: Draws, shape: str, color: tuple[int, int, int]) -> None:
    """Draw a shape at twice its size anywhere on the canvas."""
    bitmap = SHAPES[shape].repeat(2, 0).repeat(2, 1)
    stamp(canvas, bitmap, 2 + draws.below(15), 2 + draws.below(15), color)


def put_text(
    canvas: np.ndarray, text: str, row: int, color: tuple[int, int, int], first_column: int = 0
) -> None:
    """Write letters, one a cell, in a row of cells."""
    for position, letter in enumerate(text):
        stamp(canvas, GLYPHS[letter], row * CELL, (first_column + position) * CELL + 1, color)


def put_plate(canvas: np.ndarray, row: int, color: tuple[int, int, int]) -> None:
    """Fill a row of cells, such as the sign behind a text."""
    canvas[row * CELL : (row + 1) * CELL] = color


def put_bars(canvas: np.ndarray, heights: list[int], colors: list[tuple[int, int, int]]) -> None:
    """Draw up to four bars standing on the lower edge; heights in pixels, one bar a column of cells."""
    for column, (height, color) in enumerate(zip(heights, colors, strict=True)):
        left = column * CELL + 1
        canvas[SIDE - height :, left : left + CELL - 2] = color


def pastel(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour half-way to light grey."""
    red, green, blue = ((channel + 190) // 2 for channel in color)
    return red, green, blue


def blurred(canvas: np.ndarray) -> np.ndarray:
    """Mean over 3x3 neighbours, edges repeated."""
    padded = np.pad(canvas.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    total = sum(padded[i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3))
    return (np.asarray(total) // 9).astype(np.int16)


def finished(canvas: np.ndarray, draws: Draws, noise: int) -> np.ndarray:
    """The image, uint8 (32, 32, 3), with pixel noise; the noise makes every image its own."""
    return np.clip(canvas + draws.noise(noise), 0, 255).astype(np.uint8)
