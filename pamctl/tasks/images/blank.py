"""The picture of a question that has none."""

from dataclasses import dataclass

from PIL import Image

GREY = (128, 128, 128)
"""What a base that scales pixels to [-1, 1] sees as 0.004."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A plain grey square, for a question on text alone: a base that takes pictures is always given one."""

    size: int = 16

    def __call__(self) -> tuple[Image.Image]:
        return (Image.new("RGB", (self.size, self.size), GREY),)
