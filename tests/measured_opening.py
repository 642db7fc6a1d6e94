"""What opening a file costs, in a process of its own: peak memory and processor time."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SCRIPT = """
import importlib, sys, time
from pathlib import Path
from pamctl.refusal import Refusal

file, module, function = sys.argv[1:]
opened = getattr(importlib.import_module(module), function)
start = time.process_time()
try:
    opened(Path(file))
    refused = False
except Refusal:
    refused = True
seconds = time.process_time() - start
# getrusage would give the peak of the process that started this one where that is higher
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(peak, seconds, int(refused))
"""


class Opening(NamedTuple):
    """What it cost, the interpreter's own memory included."""

    megabytes: float
    seconds: float
    refused: bool


def measured_opening(file: Path, module: str, function: str) -> Opening:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    command = [sys.executable, "-c", SCRIPT, str(file), module, function]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, seconds, refused = done.stdout.split()
    return Opening(int(kilobytes) / 1024, float(seconds), refused == "1")
