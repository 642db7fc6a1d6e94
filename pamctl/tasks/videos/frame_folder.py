"""A video as a folder of pictures, a picture a frame."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pamctl.refusal import Refusal
from pamctl.tasks.images.folder import Folder
from pamctl.tasks.images.picture import Picture

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """The pictures in a folder, in the order of the last number in their names: 2.jpg before 10.jpg.

    Attributes:
        where: the record that names the video.
    """

    path: Path
    where: str = field(compare=False)

    def count(self) -> int:
        return len(self._names())

    def read(self, first: int, stride: int, most: int) -> Sequence[Image.Image]:
        folder = Folder(self.path)
        chosen = self._names()[first::stride][:most]
        return [image for name in chosen for image in Picture(folder, name, self.where)()]

    def _names(self) -> list[str]:
        try:
            names = [name for name in os.listdir(self.path) if name.lower().endswith(ENDINGS)]
        except OSError as fault:
            raise Refusal(
                f"{self.where}: video {self.path} cannot be read: {fault.strerror}",
                "put its frames there, or remove the example",
            ) from fault
        if not names:
            raise Refusal(
                f"{self.where}: video {self.path} holds no frames",
                f"put its frames there as {', '.join(ENDINGS[:3])}, or remove the example",
            )
        return sorted(names, key=_place)


def _place(name: str) -> tuple[int, str]:
    numbers = _NUMBER.findall(name.rpartition(".")[0])
    return (int(numbers[-1]) if numbers else -1, name)
