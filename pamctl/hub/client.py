"""How huggingface_hub works for pamctl: under whose name it asks, and what it may print."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pamctl import __version__

WHO: dict[str, Any] = {"library_name": "pamctl", "library_version": __version__}


@contextmanager
def quietly() -> Iterator[None]:
    """Without huggingface_hub's warnings, told in a refusal or a note, and without bars off a terminal."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity = logging.get_verbosity()
    # where the environment decides about the bars, the client warns of any other wish
    undecided = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    unseen = undecided and not sys.stderr.isatty()
    if verbosity == logging.WARNING:
        logging.set_verbosity(logging.ERROR)
    if unseen:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if unseen:
            enable_progress_bars()
