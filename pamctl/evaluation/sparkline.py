"""A row of numbers as a line of characters, for a column of a table on a terminal."""

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.:=+*#@"
"""The same in ASCII, low to high."""
GAP = " "


def sparkline(values: Sequence[float | None], low: float, high: float, *, plain: bool = False) -> str:
    """One character a value, from `low` to `high`; what lies outside is drawn at the end, None as a gap."""
    marks = PLAIN if plain else BLOCKS
    span = high - low

    def mark(value: float | None) -> str:
        if value is None:
            return GAP
        share = (value - low) / span if span > 0 else 0.0
        return marks[round(min(max(share, 0.0), 1.0) * (len(marks) - 1))]

    return "".join(map(mark, values))
