"""Where the videos of a task are: folders that hold a folder of frames, a `.npy` or a video file for each."""

import os
from collections.abc import Sequence
from pathlib import Path

from pamctl.refusal import UsageRefusal
from pamctl.tasks.videos.clip import VideoClip
from pamctl.tasks.videos.frame_array import FrameArray
from pamctl.tasks.videos.frame_folder import FrameFolder
from pamctl.tasks.videos.source import FrameSource
from pamctl.tasks.videos.video_file import ENDINGS, VideoFile

__all__ = ["FrameSource", "VideoClip", "Videos"]

ARRAY = ".npy"


class Videos:
    """Several folders, asked one after the other.

    Args:
        paths: the folders, listed when first asked for a video.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._listing: dict[str, Path] | None = None

    def find(self, names: Sequence[str], where: str) -> FrameSource | None:
        """The video of the first of some names, none of which has an ending; None where no folder has it.

        Args:
            where: the record that names it.

        Raises:
            UsageRefusal: a place is no folder.
        """
        if self._listing is None:
            self._listing = {
                name: path for place in reversed(self._paths) for name, path in _listed(place).items()
            }
        found = next((self._listing[name] for name in names if name in self._listing), None)
        return None if found is None else _opened(found, where)

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths)) or "any folder"


def _listed(folder: Path) -> dict[str, Path]:
    """The videos in a folder by name: of one that is there twice, what is fastest to read."""
    try:
        with os.scandir(folder) as opened:
            entries = list(opened)
        kinds = (_is_file, _is_folder, _is_array)
        return {Path(entry.name).stem: Path(entry.path) for fits in kinds for entry in entries if fits(entry)}
    except NotADirectoryError as fault:
        raise UsageRefusal(
            f"{folder} is no folder, and videos are read from folders", "unpack it, and name what comes of it"
        ) from fault
    except OSError as fault:
        raise UsageRefusal(
            f"{folder} cannot be read: {fault.strerror}", "name a folder that holds videos"
        ) from fault


def _opened(path: Path, where: str) -> FrameSource:
    if path.is_dir():
        return FrameFolder(path, where)
    return FrameArray(path, where) if path.suffix == ARRAY else VideoFile(path, where)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(ENDINGS) and entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir()


def _is_array(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(ARRAY) and entry.is_file()
