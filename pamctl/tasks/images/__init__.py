"""Where the images of a task are: folders, zip and tar archives, none of which is unpacked."""

from collections.abc import Sequence
from pathlib import Path

from pamctl.refusal import UsageRefusal
from pamctl.tasks.images.folder import Folder
from pamctl.tasks.images.picture import Picture, picture_file
from pamctl.tasks.images.source import ImageSource
from pamctl.tasks.images.tar_archive import TarArchive
from pamctl.tasks.images.zip_archive import ZipArchive

__all__ = ["ImageSource", "Images", "Picture", "open_source", "picture_file"]


def open_source(path: Path) -> ImageSource:
    """Open a folder or archive.

    Raises:
        UsageRefusal: it is none, or is not there.
        Refusal: the archive is damaged or compressed as a whole.
    """
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise UsageRefusal(f"{path} does not exist", "name a folder, .zip or .tar that holds the images")
    if path.suffix == ".zip":
        return ZipArchive(path)
    if ".tar" in path.suffixes or path.suffix == ".tgz":
        return TarArchive(path)
    raise UsageRefusal(f"{path} is no folder, .zip or .tar", "name one that holds the images")


class Images:
    """Several sources, asked one after the other.

    Args:
        paths: folders and archives, opened when first asked for an image.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._opened: list[ImageSource] | None = None

    @property
    def named(self) -> bool:
        """Whether there is any place to look."""
        return bool(self._paths)

    @property
    def paths(self) -> Sequence[Path]:
        """The places as they were given, for what lies there and is no image."""
        return self._paths

    def find(self, name: str, where: str) -> Picture | None:
        """The picture of this name; None where no source has it.

        Args:
            name: its path, of which leading folders may be missing in a source.
            where: the record that names it.
        """
        if self._opened is None:
            self._opened = [open_source(path) for path in self._paths]
        for source in self._opened:
            if (found := source.find(name)) is not None:
                return Picture(source, found, where)
        return None

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths)) or "any folder or archive"
