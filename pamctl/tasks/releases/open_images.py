"""Pictures of Open Images that lie on their side, and the table that tells how to put them upright."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pamctl.refusal import Refusal
from pamctl.tasks.images import Picture

UPRIGHT = ("", "0", "0.0")
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class Turned:
    """Loads a picture and turns it.

    Attributes:
        quarters: a quarter turn against the clock so many times: 1, 2 or 3.
    """

    picture: Picture
    quarters: int

    def __call__(self) -> tuple[Image.Image]:
        """The picture upright."""
        (image,) = self.picture()
        return (image.transpose(_TURNS[self.quarters]),)


def quarter_turns(table: Path) -> dict[str, int]:
    """Image -> quarter turns against the clock, of those that do not stand upright.

    Args:
        table: with columns ImageID and Rotation, in degrees or empty, such as
            train-images-boxable-with-rotation.csv.

    Raises:
        Refusal: it is no such table, or a rotation is no multiple of 90; named by line.
    """
    found: dict[str, int] = {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        try:
            for image, degrees in _columns(lines):
                if degrees not in UPRIGHT:
                    found[image] = _quarters(degrees)
        except (ValueError, IndexError, csv.Error) as fault:
            raise Refusal(
                f"{table} line {lines.line_num} cannot be read: {fault}", "download the table once more"
            ) from fault
    return {image: quarters for image, quarters in found.items() if quarters}


def _columns(lines: Any) -> Iterator[tuple[str, str]]:
    header: list[str] = next(lines, [])
    image, degrees = header.index("ImageID"), header.index("Rotation")
    for line in lines:
        yield line[image], line[degrees]


def _quarters(degrees: str) -> int:
    quarters = float(degrees) / 90
    if not quarters.is_integer():
        raise ValueError(f"a rotation of {degrees} degrees")
    return int(quarters) % 4
