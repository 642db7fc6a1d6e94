"""The `pamctl` program for tests that start it often: imported once, then forked for each command line.

Each command is a process of its own with its own streams, folder, limits and exit code; only the seconds
that importing jax takes are shared. Run as a script this file is the process that forks.
"""

import atexit
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_STREAMS = ("stdout", "stderr")


class Signalled(NamedTuple):
    """A signal that comes some seconds after a step was to begin, counted from 1 in each process."""

    number: int
    step: int
    seconds: float


@dataclass(frozen=True)
class Done:
    """How a command line ended; a negative code is the signal that ended it."""

    code: int
    stdout: str
    stderr: str


class WarmPamctl:
    """Runs command lines of `pamctl`; `scratch` takes their streams."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._started = scratch, 0
        self._forker = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(
        self, *arguments: str, cwd: Path, file_size: int | None = None, signalled: Signalled | None = None
    ) -> int:
        """Start a command and return its process id.

        Args:
            file_size: bytes beyond which no file that it writes may grow.
            signalled: the signal that a training run gets, and when.
        """
        self._started += 1
        streams = str(self._scratch / str(self._started))
        for name in _STREAMS:  # here, for it may be killed before it opens them
            Path(f"{streams}.{name}").touch()
        limits = {"file_size": file_size, "signalled": signalled}
        pid = self._ask(arguments=arguments, cwd=str(cwd), streams=streams, **limits)
        (self._scratch / str(pid)).symlink_to(streams)
        return pid

    def wait(self, pid: int) -> Done:
        """Wait until a started command has ended."""
        code, streams = self._ask(wait=pid), (self._scratch / str(pid)).readlink()
        (self._scratch / str(pid)).unlink()
        return Done(code, *(Path(f"{streams}.{name}").read_text() for name in _STREAMS))

    def __call__(
        self, *arguments: str, cwd: Path, file_size: int | None = None, signalled: Signalled | None = None
    ) -> Done:
        """Run a command to its end."""
        return self.wait(self.start(*arguments, cwd=cwd, file_size=file_size, signalled=signalled))

    def close(self) -> None:
        """End the forking process."""
        self._forker.communicate()

    def _ask(self, **request: Any) -> int:
        assert self._forker.stdin
        assert self._forker.stdout
        self._forker.stdin.write(json.dumps(request) + "\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())


def _serve() -> None:
    import pamctl.cli.main
    import pamctl.cli.output
    import pamctl.evaluation.score
    import pamctl.merging
    import pamctl.sequences.run
    import pamctl.training.task_run  # noqa: F401
    from pamctl.tasks import embedded

    embedded.TRAIN_EXAMPLES = 100  # drawing thousands takes longer than all that is done with a few

    for line in sys.stdin:
        request = json.loads(line)
        if pid := request.get("wait"):
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elif (answer := os.fork()) == 0:
            _become(**request)
        print(answer, flush=True)


def _become(
    arguments: list[str], cwd: str, streams: str, file_size: int | None, signalled: list[Any] | None
) -> None:
    from pamctl.cli.main import run

    # Where the tests were started in the background SIGINT would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    opened += [os.open(f"{streams}.{name}", os.O_WRONLY) for name in _STREAMS]
    for number, file in enumerate(opened):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    if file_size is not None:
        _write_no_compiled_programs()  # others would find them cut off
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if signalled is not None:
        _signal_itself(Signalled(*signalled))
    sys.argv = ["pamctl", *arguments]
    try:
        run()
    except SystemExit as ended:
        _leave(ended.code)


def _leave(code: Any) -> None:
    """End as a program does, but for taking apart what was imported: that takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _write_no_compiled_programs() -> None:
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)


def _signal_itself(signalled: Signalled) -> None:
    from pamctl.training import loop

    begun, train_step = itertools.count(1), loop.train_step

    def step_after_the_signal(*given: Any, **how: Any) -> Any:
        if next(begun) == signalled.step:
            time.sleep(signalled.seconds)
            os.kill(os.getpid(), signalled.number)
        return train_step(*given, **how)

    loop.train_step = step_after_the_signal  # type: ignore[assignment]


if __name__ == "__main__":
    _serve()
