"""What images are read from: anything that finds an image by the name a task gives it, and opens it."""

import lzma
import zlib
from collections.abc import Iterable
from typing import IO, Protocol


class ImageSource(Protocol):
    """A folder or archive of images; safe to read from several threads."""

    def find(self, name: str) -> str | None:
        """The source's own name for an image, None where it has none."""

    def open(self, name: str) -> IO[bytes]:
        """The bytes of an image by the source's own name; OSError or ValueError where they are damaged."""

    def place_of(self, name: str) -> str:
        """What a person is told of where an image lies."""


class Index:
    """Names in an archive, found whole, by their end where only one ends so, or without leading folders.

    An archive mostly has a folder or two around the names that a task gives its images, or none where a
    folder's content alone was packed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._whole = set(names)
        self._by_file: dict[str, list[str]] = {}
        for name in self._whole:
            self._by_file.setdefault(name.rpartition("/")[2], []).append(name)

    def find(self, name: str) -> str | None:
        """The whole name; None where there is none, or several."""
        if name in self._whole:
            return name
        ends = [
            known for known in self._by_file.get(name.rpartition("/")[2], ()) if known.endswith(f"/{name}")
        ]
        if ends:
            return ends[0] if len(ends) == 1 else None
        while "/" in name:
            name = name.partition("/")[2]
            if name in self._whole:
                return name
        return None


DAMAGED = (zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What archives raise, beside OSError and ValueError, where their bytes are not what their index says."""
