"""metrics.jsonl: what happened at each step, without times, so the same run writes the same bytes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pamctl.whole_output import disk_faults_named

FILE_NAME = "metrics.jsonl"
SCHEMA = "pamctl.training/1"
"""That the `start` event names for all that follow it."""


class MetricsLog:
    """Events in order, kept in memory and, where a file is given, appended to it for `tail -f`.

    Args:
        file: where events are appended at each `flush`; None keeps them in memory only.
        size: how many bytes of the file a checkpoint vouches for; what lies behind them is dropped.
    """

    def __init__(self, file: Path | None = None, size: int = 0) -> None:
        self._text, self._file, self._handle = bytearray(), file, None
        self._written = size
        if file is None:
            return
        # Unbuffered, so that closing it after a fault writes nothing and so cannot fail once more.
        self._handle = file.open("ab+", buffering=0)
        self._handle.seek(0)
        self._text += self._handle.read(size)
        self._handle.truncate(size)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Append one event."""
        line = json.dumps({"event": name, **fields}, ensure_ascii=False, allow_nan=False)
        self._text += line.encode() + b"\n"

    def flush(self) -> None:
        """Hand the events so far to the file."""
        if self._handle is None or self._file is None:
            return
        with disk_faults_named(self._file):
            while self._written < len(self._text):
                self._written += self._handle.write(self._text[self._written :])

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
