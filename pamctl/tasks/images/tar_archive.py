"""Images in a tar archive, read where they are."""

import io
import tarfile
from functools import cached_property
from pathlib import Path
from typing import IO

from pamctl.refusal import Refusal
from pamctl.tasks.images.source import DAMAGED, Index

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}


class TarArchive:
    """Finds images by their name in the archive, or by the end of it.

    Raises:
        Refusal: it is no tar archive, is cut off, or is compressed, which lets no image be read by itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            start = file.read(2)
        if start in _COMPRESSED:
            raise Refusal(
                f"{path} is compressed as a whole, so that no image can be read without those before it",
                f"uncompress it with {_COMPRESSED[start]}, or unpack it, and name that",
            )

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        """Where the bytes of each member begin, and how many they are."""
        try:
            with tarfile.open(self._path, "r:") as archive:
                return {
                    member.name.removeprefix("./"): (member.offset_data, member.size)
                    for member in archive
                    if member.isreg()
                }
        except (tarfile.TarError, OSError, ValueError, *DAMAGED) as fault:
            raise Refusal(
                f"{self._path} cannot be read as a tar archive: {fault}", "download it once more"
            ) from fault

    @cached_property
    def _index(self) -> Index:
        return Index(self._members)

    def find(self, name: str) -> str | None:
        return self._index.find(name)

    def open(self, name: str) -> IO[bytes]:
        offset, size = self._members[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise OSError("the archive is cut off")
        return io.BytesIO(content)

    def place_of(self, name: str) -> str:
        return f"{self._path}/{name}"
