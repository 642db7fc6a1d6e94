"""Images in a folder."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from pamctl.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Folder:
    """Finds images by their path in a folder; leading folders of a name may be missing on disk."""

    path: Path

    def find(self, name: str) -> str | None:
        # What a file names must not lead out of the folder; an absolute path begins with an empty part.
        if {"", ".."} & set(name.split("/")):
            return None
        while name:
            folder, _, file = name.rpartition("/")
            if file in _listed(os.path.join(self.path, folder)):
                return name
            _, _, name = name.partition("/")
        return None

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")

    def place_of(self, name: str) -> str:
        return str(self.path / name)


@lru_cache(maxsize=64)
def _listed(folder: str) -> frozenset[str]:
    """The files of a folder: asking once is faster than asking for each of many images."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if _is_file(entry))
    except PermissionError as fault:
        raise Refusal(f"{folder} cannot be read: {fault.strerror}", "give yourself the right to") from fault
    except (OSError, ValueError):
        return frozenset()


def _is_file(entry: os.DirEntry[str]) -> bool:
    """False for a link that leads to itself as well, which is no reason to miss what lies beside it."""
    try:
        return entry.is_file()
    except OSError:
        return False
