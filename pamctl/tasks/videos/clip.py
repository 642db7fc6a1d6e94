"""What is seen of a video: some frames, a stride apart, from its beginning or from a start drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pamctl.tasks.videos.source import FrameSource


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Loads the frames of a clip; a `pamctl.tasks.visits.Clip`, equal for equal clips of equal videos.

    A video that ends before enough frames were seen has those again from the first on, as often as needed
    (google-research/big_vision, pp/proj/paligemma/video.py).

    Attributes:
        source: the video.
        frames: how many are seen.
        stride: from one to the next, in frames of the video.
    """

    source: FrameSource
    frames: int
    stride: int

    def __call__(self) -> Sequence[Image.Image]:
        """The frames from the video's first on, which scores are taken with."""
        return self._seen(0)

    def at(self, start: float) -> Sequence[Image.Image]:
        """The frames from a start in [0, 1): every start after which a whole clip follows has its turn."""
        starts = max(1, self.source.count() - (self.frames - 1) * self.stride)
        return self._seen(int(start * starts))

    def _seen(self, first: int) -> Sequence[Image.Image]:
        found = self.source.read(first, self.stride, self.frames)
        return [found[place % len(found)] for place in range(self.frames)]
