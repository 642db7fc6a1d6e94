"""What a clip's frames are read from: anything that counts the frames of one video, and decodes some."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image


class FrameSource(Protocol):
    """The frames of one video, numbered from 0; equal for equal places."""

    def count(self) -> int:
        """How many frames there are."""

    def read(self, first: int, stride: int, most: int) -> Sequence[Image.Image]:
        """Frames `first`, `first + stride` and so on as RGB: `most` of them, fewer where the video ends.

        Raises:
            Refusal: the video cannot be read, or has no frame `first`.
        """
