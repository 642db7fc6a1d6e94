"""Two processes that append to one file at once, killed at random moments over and over; tells what was done.

Usage: killed_writers.py FILE ROUNDS. Prints one JSON object: for each writer, how many of its records it was
told are written. A writer hands the system a few bytes at a time, so that a kill mostly comes in mid-record.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pamctl.evaluation import json_lines

BYTES_AT_ONCE = 8
_write = os.write


def _write_few(file: int, data: bytes) -> int:
    return _write(file, data[:BYTES_AT_ONCE])


def start(path: Path, writer: int) -> tuple[int, int]:
    """Start a writer; return its process id, and the end of a pipe on which it sends a byte a record."""
    heard, tells = os.pipe()
    if (process := os.fork()) == 0:
        os.write, os.fsync = _write_few, lambda file: None  # type: ignore[assignment]
        number = 0
        while True:
            json_lines.append_records(path, [{"writer": writer, "number": number, "of": {"ß": "x" * 5000}}])
            number += 1
            _write(tells, b".")
    os.close(tells)
    return process, heard


def main(path: Path, rounds: int) -> None:
    draws, written = random.Random(0), {}
    for first in range(0, 2 * rounds, 2):
        writers = {writer: start(path, writer) for writer in (first, first + 1)}
        for process, _ in writers.values():
            time.sleep(draws.uniform(0.002, 0.03))
            os.kill(process, signal.SIGKILL)
        for writer, (process, heard) in writers.items():
            os.waitpid(process, 0)
            with os.fdopen(heard, "rb") as told:
                written[writer] = len(told.read())
    print(json.dumps(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
