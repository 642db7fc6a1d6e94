"""A video as a compressed file, decoded by PyAV (the extra `video`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pamctl.refusal import Refusal

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

ENDINGS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".3gp")
COMPLETE = 0.9
"""Of the frames in the header: some are never shown, but a file that was cut off lacks more."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file that is decoded from its beginning to the last frame seen, and no further.

    Attributes:
        where: the record that names the video.
    """

    path: Path
    where: str = field(compare=False)

    def count(self) -> int:
        """As the file's header says, else the packets of its stream, which need no decoding."""
        return _count(self)

    def read(self, first: int, stride: int, most: int) -> Sequence[Image.Image]:
        found = []
        with self.opened() as (container, stream):
            number = -1
            for number, frame in enumerate(container.decode(stream)):
                if number >= first and (number - first) % stride == 0:
                    found.append(frame.to_image())
                if len(found) == most:
                    return found
            self._refuse_cut_off(number + 1, stream.frames)
        if not found:
            raise self._fault(f"ends before frame {first}")
        return found

    @contextmanager
    def opened(self) -> Iterator[tuple["InputContainer", "VideoStream"]]:
        """The file and its first stream of pictures; what goes wrong inside is refused too."""
        try:
            import av
        except ImportError as missing:
            raise Refusal(
                f"{self.where}: video {self.path} needs PyAV, which is not installed",
                'pip install "pamctl[video]", or give its frames as a folder of pictures or a .npy file',
            ) from missing
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise self._fault("has no pictures")
                yield container, container.streams.video[0]
        except (av.FFmpegError, OSError, ValueError) as fault:
            raise self._fault(f"cannot be read: {fault}") from fault

    def _refuse_cut_off(self, decoded: int, promised: int) -> None:
        if decoded < max(1, COMPLETE * promised):
            raise self._fault(f"ends after {decoded} frames, and has {promised} by its header")

    def _fault(self, what: str) -> Refusal:
        return Refusal(
            f"{self.where}: video {self.path} {what}", "download it once more, or remove the example"
        )


@lru_cache(maxsize=1 << 16)
def _count(video: VideoFile) -> int:
    with video.opened() as (container, stream):
        return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
