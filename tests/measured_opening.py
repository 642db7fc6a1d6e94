"""What opening a file costs, in a process of its own: peak memory and processor time."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SCRIPT = """
import importlib, resource, sys, time
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
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time() - start, int(refused))
"""


class Opening(NamedTuple):
    """What it cost, the interpreter's own memory included."""

    megabytes: float
    seconds: float
    refused: bool


def measured_opening(file: Path, module: str, function: str) -> Opening:
    command = [sys.executable, "-c", SCRIPT, str(file), module, function]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, seconds, refused = done.stdout.split()
    return Opening(int(kilobytes) / 1024, float(seconds), refused == "1")
