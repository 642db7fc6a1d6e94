"""How to save with orbax: without its log, whole in spite of Ctrl-C, and with a full disk told as one."""

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

DISK_LIMITS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def orbax_saving() -> Iterator[None]:
    """Let orbax save in the block: silently, to the end, and with a full disk raised as an OSError."""
    with interrupt_deferred(), _silent_and_named():
        yield


def saved_in_background(start: Callable[[], Any], then: Callable[[], None]) -> Future[None]:
    """Start a save and return what is done once the save is on disk and `then`, in another thread, has run.

    Args:
        start: begins the save and returns orbax's response; a fault of it is raised here.
        then: what is to follow a save that did not fail.

    Raises:
        OSError: by this call or by the result: the disk is full, or a file larger than it may be.
    """
    with interrupt_deferred(), ExitStack() as entered:
        entered.enter_context(_silent_and_named())
        response = start()
        until_saved = entered.pop_all()

    def finish() -> None:
        with until_saved:
            response.result()
        then()

    thread = ThreadPoolExecutor(max_workers=1)
    finished = thread.submit(finish)
    thread.shutdown(wait=False)
    return finished


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: interrupted half-way, orbax's threads never end."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: pressed.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(signal.SIGINT, pressed[0])


@contextmanager
def _silent_and_named() -> Iterator[None]:
    """Keep away what orbax prints of a fault, and raise a full disk as the OSError that it is."""
    with _log_silenced():
        others, unraisable = set(threading.enumerate()), sys.unraisablehook
        sys.unraisablehook = _closed_loops_dropped(unraisable)
        try:
            yield
            sys.unraisablehook = unraisable  # but not after a fault: what is dropped may come later
        except Exception as fault:  # tensorstore tells a full disk as a ValueError
            _wait_for(set(threading.enumerate()) - others - {threading.current_thread()})
            for number in DISK_LIMITS:
                if os.strerror(number) in str(fault):
                    raise OSError(number, os.strerror(number)) from fault
            raise


@contextmanager
def _log_silenced() -> Iterator[None]:
    """Keep orbax's log, which is absl's, from printing tracebacks of a fault that is raised as well."""
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _closed_loops_dropped(hook: Callable[..., Any]) -> Callable[["sys.UnraisableHookArgs"], None]:
    """The hook less what tensorstore tells the loop of a failed save: that other arrays failed as well."""

    def dropping(fault: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" not in str(fault.exc_value):
            hook(fault)

    return dropping


def _wait_for(threads: Iterable[threading.Thread], seconds: float = 2.0) -> None:
    """Let the threads that a failed save left behind end, before the folder they write to is removed."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
