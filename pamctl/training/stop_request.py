"""What SIGTERM means while training: finish the step, save a checkpoint, then leave."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """A flag that SIGTERM raises while the block runs; the loop reads it between two steps.

    Off the main thread, where Python takes no signals, the flag stays down.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._raise_flag)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
