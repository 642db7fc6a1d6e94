"""How numbers become places in a drawing, and which of them an axis names."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Scale:
    """A straight line from the numbers `low` to `high` onto the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a number; the middle where all numbers are the same."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that lie within low and high."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(step for step in STEPS if step * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """A number of an axis."""
    return f"{value + 0.0:g}".replace("-", "−")


def bounds(values: Iterable[float], *more: float, room: float = 0.05) -> tuple[float, float]:
    """The least and the greatest number, with room around them; 0 to 1 where there is none."""
    known = [*values, *more]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    pad = (high - low) * room or max(abs(high) * room, 0.5)
    return low - pad, high + pad
