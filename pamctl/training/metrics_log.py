"""metrics.jsonl: what happened at each step, without times, so the same run writes the same bytes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"


class MetricsLog:
    """Events in order, kept in memory and, where a file is given, appended to it for `tail -f`.

    Args:
        file: where events are appended as they come; None keeps them in memory only.
        size: how many bytes of the file a checkpoint vouches for; what lies behind them is dropped.
    """

    def __init__(self, file: Path | None = None, size: int = 0) -> None:
        self._text = bytearray()
        self._handle = None
        if file is None:
            return
        self._handle = file.open("ab+")
        self._handle.seek(0)
        self._text += self._handle.read(size)
        self._handle.truncate(size)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Append one event."""
        line = json.dumps({"event": name, **fields}, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._text += line
        if self._handle is not None:
            self._handle.write(line)

    def flush(self) -> None:
        """Hand the events so far to the file."""
        if self._handle is not None:
            self._handle.flush()

    def synced(self) -> int:
        """Force the events so far to disk and return how many bytes they are."""
        self.flush()
        if self._handle is not None:
            os.fsync(self._handle.fileno())
        return len(self._text)

    def write_to(self, folder: Path) -> None:
        """Write the whole log into a folder."""
        (folder / FILE_NAME).write_bytes(self._text)

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()
