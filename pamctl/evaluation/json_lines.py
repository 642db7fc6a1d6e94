"""How records reach a JSON Lines file that several processes share, and how they are read back."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.whole_output import disk_faults_named

_ESCAPED_HALF = re.compile(rb"\\u[dD]")
"""Half of a character that JSON escapes in two halves, or has lost one of them."""


@dataclass(frozen=True)
class Line:
    """One line of a file: the object on it, or None where a killed writer left it torn."""

    number: int
    record: Mapping[str, Any] | None

    def torn_note(self, path: Path) -> str:
        """What the user is told of a torn line of a file."""
        return f"{path} line {self.number} was left torn by a stopped writer and is skipped"


def append_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Append whole lines under an exclusive lock and flush them to disk; all of them, or none.

    A last line that a killed writer left without its end stays where it is, and a new line is started.
    """
    text = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    refuse_unwritable(path)
    with disk_faults_named(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
        try:
            end = os.fstat(file).st_size
            torn = end > 0 and os.pread(file, 1, end - 1) != b"\n"
            _write_all(file, path, ("\n" * torn + text).encode(), end)
        finally:
            os.close(file)


def refuse_unwritable(path: Path) -> None:
    """Refuse, before any work is done, a file that cannot be appended to."""
    if path.exists():
        if not path.is_file():
            raise UsageRefusal(f"{path} is not a file", "name a .jsonl file to append to")
        if not os.access(path, os.R_OK | os.W_OK):
            raise Refusal(f"{path} may not be written", "name a file you may write to")
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise Refusal(f"{path} cannot be made in {folder}", "name a file in a folder you may write to")


def refuse_same(path: Path | None, other: Path | None) -> None:
    """Refuse, before any work is done, one file for records of two kinds; None is no file."""
    if path and other and os.path.realpath(path) == os.path.realpath(other):
        raise UsageRefusal(f"{path} is named for results and for predictions", "name a file for each")


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a file that is not blank; refuses an absent file, and a line that is not an object."""
    if not path.is_file():
        raise UsageRefusal(
            f"{path} is not a file", "name a .jsonl file that pamctl eval wrote with --results"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield Line(number, _record(path, number, text))


def _record(path: Path, number: int, text: bytes) -> Mapping[str, Any] | None:
    try:
        record = json.loads(text.decode())
    except (ValueError, RecursionError) as fault:
        if _is_torn(text):
            return None
        raise Refusal(
            f"{path} line {number} is not JSON: {fault}", "remove the line, or name another file"
        ) from fault
    if not isinstance(record, dict):
        raise Refusal(f"{path} line {number} is not an object", "remove the line, or name another file")
    if _ESCAPED_HALF.search(text):
        _refuse_half_characters(f"{path} line {number}", record)
    return record


def _refuse_half_characters(where: str, record: Mapping[str, Any]) -> None:
    """Refuse a text with a lone surrogate, such as "\\ud800", which no file can hold."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        raise Refusal(f"{where} has a text with half of a character in it", "remove the line") from fault


def _is_torn(text: bytes) -> bool:
    """Whether an object was begun and never ended; a crash of the machine may leave zeros after it."""
    without_strings = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text)
    opened = without_strings.count(b"{") > without_strings.count(b"}")
    return b"\0" in text or (text.startswith(b"{") and (opened or b'"' in without_strings))


def _locked(path: Path) -> int:
    """The file, opened to append and locked against other writers."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        # The holder before may have taken the file back, empty as it was, while this one waited.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)


def _write_all(file: int, path: Path, payload: bytes, end: int) -> None:
    try:
        # one call in all but the rarest case: the lock guards what a short write would let others split
        while payload:
            payload = payload[os.write(file, payload) :]
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, end)
            if end == 0:
                path.unlink()
        raise
