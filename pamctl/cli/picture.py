"""How an image looks in a terminal: two pixels a character, in colour where the terminal has it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

COLUMNS = 64
SHADES = " .:-=+*#%@"


def print_picture(image: "Image.Image", console: "Console") -> None:
    """Print an image no wider than the terminal; in shades of text where there is no colour."""
    from rich.text import Text

    width = min(COLUMNS, image.width, console.width)
    small = image.convert("RGB").resize((width, max(2, round(image.height * width / image.width / 2) * 2)))
    for line in _coloured(small) if console.color_system else map(Text, _shaded(small)):
        console.print(line, no_wrap=True, crop=True)


def side_by_side(images: "Sequence[Image.Image]") -> "Image.Image":
    """One picture of all frames, from left to right; a single image as it is."""
    from PIL import Image

    if len(images) == 1:
        return images[0]
    height = max(image.height for image in images)
    strip = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width
    return strip


def _coloured(image: "Image.Image") -> Iterator[object]:
    from rich.text import Text

    for y in range(0, image.height, 2):
        line = Text()
        for x in range(image.width):
            upper, lower = (",".join(map(str, image.getpixel((x, y + half)))) for half in (0, 1))  # type: ignore[arg-type]
            line.append("▀", style=f"rgb({upper}) on rgb({lower})")
        yield line


def _shaded(image: "Image.Image") -> Iterator[str]:
    grey = image.convert("L").resize((image.width, image.height // 2))
    for y in range(grey.height):
        shades = (grey.getpixel((x, y)) for x in range(grey.width))
        yield "".join(SHADES[int(shade) * len(SHADES) // 256] for shade in shades)  # type: ignore[arg-type]
