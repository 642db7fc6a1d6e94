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
        self._found: dict[str, Path] | None = None

    def find(self, names: Sequence[str], where: str) -> FrameSource | None:
        """The video of the first of some names, none of which has an ending; None where no folder has it.

        Args:
            where: the record that names it.

        Raises:
            UsageRefusal: a place is no folder.
        """
        if self._found is None:
            self._found = {}
            for path in self._paths:
                self._found = _listed(path) | self._found
        found = next((self._found[name] for name in names if name in self._found), None)
        return None if found is None else _opened(found, where)

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths)) or "any folder"


def _listed(folder: Path) -> dict[str, Path]:
    """The videos in a folder by name: of one that is there twice, what is fastest to read."""
    if not folder.is_dir():
        raise UsageRefusal(
            f"{folder} is no folder, and videos are read from folders", "unpack it, and name what comes of it"
        )
    found: dict[str, Path] = {}
    for fits in (_is_file, _is_folder, _is_array):
        with os.scandir(folder) as entries:
            found |= {Path(entry.name).stem: Path(entry.path) for entry in entries if fits(entry)}
    return found


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
