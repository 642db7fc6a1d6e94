"""Lossless videos whose frames tell their number."""

from pathlib import Path

import av
import numpy as np


def frame(number: int) -> np.ndarray:
    """One grey picture, told by its number: (8, 16, 3) uint8."""
    return np.full((8, 16, 3), 10 * number, np.uint8)


def write_video(path: Path, count: int, codec: str) -> Path:
    """Frames 0 to `count` - 1, five a second, by `rawvideo` or `ffv1`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = 16, 8
        stream.pix_fmt = "bgr24" if codec == "rawvideo" else "bgr0"
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(number), format="rgb24")))
        container.mux(stream.encode())
    return path
