"""A diagram whose labels are painted over with the letters that a question calls them by."""

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from pamctl.tasks.images.picture import Picture

LARGEST = 100
"""Size of a letter, in pixels."""


@dataclass(frozen=True, slots=True)
class Label:
    """A place in a diagram, and what it says.

    Attributes:
        box: left, top, right, bottom in pixels, the last two included.
    """

    box: tuple[float, float, float, float]
    text: str


@dataclass(frozen=True, slots=True)
class Lettered:
    """Loads a picture with labels painted onto it: white boxes with black text at the top, in the middle.

    Attributes:
        font: a TrueType file; None for Pillow's own.
    """

    picture: Picture
    labels: tuple[Label, ...]
    font: str | None = None

    def __call__(self) -> tuple[Image.Image]:
        """The painted image as RGB; refuses what `Picture` refuses."""
        (image,) = self.picture()
        draw = ImageDraw.Draw(image)
        for label in self.labels:
            left, top, right, bottom = label.box
            draw.rectangle(label.box, fill="white")
            font = self._largest(label.text, right - left, bottom - top)
            aside = (right - left - font.getbbox(label.text)[2]) // 2
            draw.text((left + aside, top), label.text, fill="black", font=font)
        return (image,)

    def _largest(self, text: str, width: float, height: float) -> ImageFont.FreeTypeFont:
        """The font in the largest size in which the text fits, or in the smallest there is."""
        for size in range(LARGEST, 1, -1):
            font = font_of(self.font, size)
            _, _, right, bottom = font.getbbox(text)
            if right <= width and bottom <= height:
                return font
        return font_of(self.font, 1)


@lru_cache(maxsize=4 * LARGEST)
def font_of(file: str | None, size: int) -> ImageFont.FreeTypeFont:
    """A font in a size; OSError where the file is no font."""
    if file is not None:
        return ImageFont.truetype(file, size)
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found
