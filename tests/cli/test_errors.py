"""Every failure ends with its exit code and, where known, in two lines."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.refusal import Preempted, Refusal, UsageRefusal


def raising(fault: BaseException) -> Callable[[], NoReturn]:
    def command() -> NoReturn:
        raise fault

    return command


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Refusal("a is wrong", "do b"), 1, "Error: a is wrong\nHint: do b\n"),
        (UsageRefusal("no option c", "use d"), 2, "Error: no option c\nHint: use d\n"),
        (Preempted("stopped", "run again"), 75, "Error: stopped\nHint: run again\n"),
        (KeyboardInterrupt(), 130, "Interrupted\n"),
        (click.Abort(), 130, "Interrupted\n"),
        (click.exceptions.Exit(1), 1, ""),
        (
            MemoryError(),
            1,
            "Error: out of memory\nHint: use a smaller batch, or a machine with more memory\n",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/x"),
            1,
            "Error: No space left on device (/full/x)\nHint: free some disk space, then run again\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone"),
            1,
            "Error: No such file or directory (gone)\nHint: check the path\n",
        ),
    ],
)
def test_exit_codes(fault: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raising(fault)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ü is a\nnew line", "ü is a new line"),
        ("\x1b[2Jred", "\\x1b[2Jred"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u200bb\u2066c\ufeff\r", "a\\u200bb\\u2066c\\ufeff\\r"),
        ("no " + "a" * 200 + " here", "no " + "a" * 200 + " here"),
        ("no " + "a" * 2000 + "b" * 3000 + " here", "no " + "a" * 100 + "…" + "b" * 100 + " here"),
    ],
)
def test_what_is_told_is_shown_as_it_is_and_shortened(
    said: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code_of(raising(Refusal(said, said)))
    assert capsys.readouterr().err == f"Error: {told}\nHint: {told}\n"


def test_done_is_zero() -> None:
    assert exit_code_of(lambda: None) == 0


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAMCTL_DEBUG", "1")
    with pytest.raises(Refusal):
        exit_code_of(raising(Refusal("a", "b")))


def test_what_nobody_foresaw_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(raising(ZeroDivisionError()))


def test_a_closed_pipe_is_141() -> None:
    line = f"{sys.executable} -m pamctl tasks list --json; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"( {line} ) | true"], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] in ("141", "0")
    with_reader = subprocess.run(
        ["bash", "-c", f"( sleep 0.5; {line} ) | true"], capture_output=True, text=True
    )
    assert with_reader.stderr.strip() == "141"


@pytest.mark.parametrize("command", ["inspect missing", "--version"])
def test_a_stdout_that_is_closed_is_no_traceback(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m pamctl {command} >&-'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
