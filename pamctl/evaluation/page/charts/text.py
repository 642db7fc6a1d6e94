"""How wide text is about, for drawings that must leave room for it: no font is measured."""

import itertools
import unicodedata

FONT = 11.0
"""Pixels of the letters in a drawing; the style sheet says the same."""
LINE = 13.0
"""Pixels from one line of labels to the next."""
_NARROW, _WIDE, _OTHER = frozenset("iljtfrI.,:;'|!()[] "), frozenset("mwMW@%—="), 0.63


def width_of(text: str) -> float:
    """Pixels that a label takes, on the safe side."""
    return sum(map(_share, text)) * FONT


def fitted(text: str, room: float) -> str:
    """The text, cut with an ellipsis where it takes more than `room` pixels."""
    if width_of(text) <= room:
        return text
    widths = (width + _share("…") for width in itertools.accumulate(map(_share, text)))
    kept = sum(1 for _ in itertools.takewhile(lambda width: width * FONT <= room, widths))
    return text[:kept].rstrip() + "…"


def _share(letter: str) -> float:
    if letter in _NARROW:
        return 0.36
    if letter in _WIDE:
        return 0.92
    return 1.0 if unicodedata.east_asian_width(letter) in "WF" else _OTHER
