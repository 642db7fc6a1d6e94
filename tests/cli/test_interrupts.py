"""Signals while a generator is cleared away, which Python by itself prints and forgets."""

import subprocess
import sys

import pytest

DROPPED = """
import os, signal, sys, time
from pamctl.cli.errors import exit_code_of
from pamctl.cli.interrupts import repeat_interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
repeat_interrupts()

def generator():
    try:
        yield
    finally:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(1)

def command():
    begun = generator()
    next(begun)
    del begun
    time.sleep(20)
    return 3

sys.exit(exit_code_of(command))
"""


@pytest.mark.parametrize(("number", "code", "told"), [(2, 130, "Interrupted\n"), (15, 143, "")])
def test_a_signal_to_a_generator_that_is_cleared_away_counts(number: int, code: int, told: str) -> None:
    command = [sys.executable, "-c", DROPPED, str(number)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (code, told)
