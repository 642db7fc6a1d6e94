"""Which systems have the least and the most of something, as a caption tells it: to a tenth."""

from collections.abc import Mapping
from typing import NamedTuple


class Extreme(NamedTuple):
    """The systems that share an end, comma by comma, and their number."""

    systems: str
    number: str


def extremes(numbers: Mapping[str, float]) -> tuple[Extreme, Extreme]:
    """The least and the most of at least one system; the same where no two numbers differ to a tenth."""
    tenths = {system: round(number, 1) + 0.0 for system, number in numbers.items()}  # + 0.0: no -0.0
    least, most = (
        Extreme(", ".join(system for system in tenths if tenths[system] == end), f"{end:.1f}")
        for end in (min(tenths.values()), max(tenths.values()))
    )
    return least, most
