"""A video as one array of pixels in a `.npy` file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pamctl.refusal import Refusal

DAMAGED = (OSError, ValueError, EOFError, OverflowError, SyntaxError, TokenError)
"""What numpy raises where a file is not what its header says, or the header is none."""


@dataclass(frozen=True, slots=True)
class FrameArray:
    """Frames (n, height, width, 3) of uint8, of which only those that are seen are read from disk.

    Attributes:
        where: the record that names the video.
    """

    path: Path
    where: str = field(compare=False)

    def count(self) -> int:
        return len(self._mapped())

    def read(self, first: int, stride: int, most: int) -> Sequence[Image.Image]:
        return [Image.fromarray(frame) for frame in self._mapped()[first::stride][:most]]

    def _mapped(self) -> NDArray[np.uint8]:
        try:
            with np.errstate(over="ignore"):
                found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except DAMAGED as fault:
            raise self._fault(f"cannot be read: {fault}") from fault
        if not isinstance(found, np.ndarray):
            raise self._fault("is a zip archive of arrays, not one array")
        if found.dtype != np.uint8 or found.ndim != 4 or found.shape[-1] != 3 or 0 in found.shape:
            raise self._fault(f"has shape {found.shape} of {found.dtype}, not (n, height, width, 3) of uint8")
        return found

    def _fault(self, what: str) -> Refusal:
        return Refusal(f"{self.where}: video {self.path} {what}", "write it once more, or remove the example")
