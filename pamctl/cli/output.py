"""The one place that prints: results to stdout, everything else to stderr."""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pamctl.printable import harmless, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SECONDS_BETWEEN_PLAIN_LINES = 5.0


_HALF = re.compile("[\ud800-\udfff]")
"""What stands in a text for bytes that are none, as in the name of a file."""
_printing = True


def print_nothing() -> None:
    """Leave printing to another process of the same run, from here on; errors are still told."""
    global _printing
    _printing = False


def print_result(result: object) -> None:
    """Print what a shell captures: the path of what was written, or the text that was asked for."""
    if _printing:
        text = str(result)
        # the name of a file need not be text
        click.echo(os.fsencode(text) if _HALF.search(text) else text)


def print_json(name: str, payload: Mapping[str, Any]) -> None:
    """Print one JSON object with its `schema`; NaN and Inf never appear in it."""
    if _printing:
        line = json.dumps({"schema": f"pamctl.{name}/1", **payload}, ensure_ascii=False, allow_nan=False)
        click.echo(_HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", line))


def say(message: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    if _printing:
        click.echo(harmless(message), err=True)


def warn(message: str) -> None:
    """Say what the user should know before trusting the result."""
    if _printing:
        click.echo(f"Warning: {printable(message)}", err=True)


def print_table(table: "Table", *, to_stdout: bool = False, whole: bool = False) -> None:
    """Print a rich table, on stderr unless it is the command's result; its cells are text, and no markup.

    Args:
        whole: give it the width that it needs where a terminal does not limit it.
    """
    from rich.console import Console
    from rich.measure import Measurement

    if not _printing:
        return
    console = Console(stderr=not to_stdout, soft_wrap=False, markup=False, emoji=False)
    if whole and not console.is_terminal:
        endless = console.options.update_width(10_000)
        console.width = max(console.width, Measurement.get(console, endless, table).maximum)
    console.print(table)


def draws_blocks() -> bool:
    """Whether stderr may be sent block characters: it says that it can, and nothing asks for plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"


class Progress:
    """A live bar on a terminal; elsewhere one plain line every few seconds.

    Args:
        total: how many there will be; None where that is not known before the end.
    """

    def __init__(self, title: str, total: int | None, *, unit: str = "step") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.started = self.last_line = time.monotonic()
        self.first_done: int | None = None
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if _printing and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _live_bar()
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, detail: str = "") -> None:
        """Show that `done` of the total is finished, with a few words such as the loss."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, detail=detail)
            return
        now = time.monotonic()
        if self.first_done is None:
            self.first_done, self.started = done, now
        if done == self.total or now - self.last_line >= SECONDS_BETWEEN_PLAIN_LINES:
            self.last_line = now
            place = f"{self.title}: {self.unit} {done}" + ("" if self.total is None else f"/{self.total}")
            say(f"{place} {detail} {self._time_left(done, now)}".rstrip())

    def _time_left(self, done: int, now: float) -> str:
        since = done - (self.first_done or 0)
        if self.total is None or done >= self.total or since <= 0:
            return ""
        return f"about {(now - self.started) / since * (self.total - done):.0f} s left"


def stderr_console() -> "Console":
    """The rich console for live displays; it honours NO_COLOR and plain streams by itself."""
    from rich.console import Console

    return Console(stderr=True)


def _live_bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=stderr_console(),
        transient=True,
    )
