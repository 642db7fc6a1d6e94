"""Random choices that are a function of (seed, stream, index) and of nothing else.

SHAKE-256 is a standard with one answer for all machines and library versions, which numpy's generators
do not promise; every choice below is integer arithmetic on its bytes.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")

_CHOICE_BYTES = 512
_PIXEL_BYTES = 32 * 32 * 3


class Draws:
    """The choices of one generated example, taken in order.

    Args:
        seed: the task's seed.
        stream: what is drawn, such as `tiny-gqa/test`.
        index: position in the stream.
    """

    def __init__(self, seed: int, stream: str, index: int) -> None:
        key = f"{seed}/{stream}/{index}".encode()
        stored = hashlib.shake_256(key).digest(_CHOICE_BYTES + _PIXEL_BYTES)
        self._words = np.frombuffer(stored, "<u4", _CHOICE_BYTES // 4).tolist()
        self._pixels = np.frombuffer(stored, np.uint8, _PIXEL_BYTES, _CHOICE_BYTES)
        self._next = 0

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        word = self._words[self._next]
        self._next += 1
        return word % bound

    def chance(self, percent: int) -> bool:
        """True in `percent` of the cases."""
        return self.below(100) < percent

    def pick(self, among: Sequence[Choice]) -> Choice:
        """One element."""
        return among[self.below(len(among))]

    def sample(self, among: Sequence[Choice], count: int) -> list[Choice]:
        """`count` different elements in random order."""
        left = list(among)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def noise(self, amplitude: int) -> np.ndarray:
        """Pixel noise, int16 (32, 32, 3), uniform in [-amplitude, amplitude]."""
        spread = self._pixels.astype(np.int16) % (2 * amplitude + 1) - amplitude
        return spread.reshape(32, 32, 3)
