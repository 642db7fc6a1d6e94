"""What becomes of Ctrl-C and SIGTERM that fall where Python can only print them."""

import _thread
import signal
import sys
import threading

SECONDS = 0.01
_SIGNAL_OF = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}


def repeat_interrupts() -> None:
    """Let them count where Python drops what they raise: while a generator, say, is cleared away."""
    told = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        number = _SIGNAL_OF.get(dropped.exc_type)
        if number is None:
            told(dropped)
        else:
            # A moment later, because here it would be dropped once more.
            threading.Timer(SECONDS, _thread.interrupt_main, [number]).start()

    sys.unraisablehook = hook
