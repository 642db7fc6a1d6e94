"""Images in a zip archive, read where they are."""

import io
import zipfile
from functools import cached_property
from pathlib import Path
from typing import IO

from pamctl.refusal import Refusal
from pamctl.tasks.images.source import DAMAGED, Index


class ZipArchive:
    """Finds images by their name in the archive, or by the end of it.

    Raises:
        Refusal: it is no zip archive, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, *DAMAGED) as fault:
            raise Refusal(
                f"{path} cannot be read as a zip archive: {fault}", "download it once more"
            ) from fault

    @cached_property
    def _index(self) -> Index:
        return Index(name for name in self._file.namelist() if not name.endswith("/"))

    def find(self, name: str) -> str | None:
        return self._index.find(name)

    def open(self, name: str) -> IO[bytes]:
        try:
            return io.BytesIO(self._file.read(name))
        except (zipfile.BadZipFile, *DAMAGED) as fault:
            raise OSError(str(fault)) from fault

    def place_of(self, name: str) -> str:
        return f"{self._path}/{name}"
