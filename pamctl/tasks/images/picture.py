"""How one picture of a task is decoded: eight-bit RGB from an image file, each fault named with its place."""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pamctl.refusal import Refusal
from pamctl.tasks.images.folder import Folder
from pamctl.tasks.images.source import ImageSource

DEEP_MODES = ("I", "F")


@dataclass(frozen=True, slots=True)
class Picture:
    """Loads one image when called; equal for equal images, so that a reader can decode each once.

    Attributes:
        source: where it lies.
        name: which of the source's images.
        where: the record that names it.
    """

    source: ImageSource
    name: str
    where: str = field(compare=False)

    def __call__(self) -> tuple[Image.Image]:
        """The image as RGB; refuses what is broken, 16-bit, or larger than Pillow's decompression limit."""
        try:
            return (self._decoded(),)
        except Image.DecompressionBombError as fault:
            raise Refusal(
                f"{self.where}: image {self.place} has more than {Image.MAX_IMAGE_PIXELS} pixels",
                "scale it down, or remove the line",
            ) from fault
        except UnidentifiedImageError as fault:
            raise Refusal(
                f"{self.where}: image {self.place} cannot be read: it is empty, or of no known format",
                "replace the file, or remove the line",
            ) from fault
        except (OSError, ValueError, SyntaxError, EOFError) as fault:
            raise Refusal(
                f"{self.where}: image {self.place} cannot be read: {fault}",
                "replace the file, or remove the line",
            ) from fault

    @property
    def place(self) -> str:
        """What a person is told of where the image lies."""
        return self.source.place_of(self.name)

    def _decoded(self) -> Image.Image:
        with warnings.catch_warnings():
            # of damaged metadata, which changes no pixel
            warnings.simplefilter("ignore")
            with self.source.open(self.name) as file, Image.open(file) as image:
                if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                    raise Image.DecompressionBombError
                if image.mode.startswith(DEEP_MODES):
                    raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
                # Pillow loses the colour key of a palette unless alpha is made explicit first
                return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")


def picture_file(path: Path, where: str) -> Picture:
    """The picture of an image file by itself."""
    return Picture(Folder(path.parent), path.name, where)
