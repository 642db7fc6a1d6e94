"""Random numbers that depend on what they are for and on nothing else: no order, thread, block or device."""

import hashlib
from dataclasses import dataclass

import numpy as np

from pamctl.adapters.factors import Float32

_EIGHT = 8  # numbers that one step of Philox4x64 gives, at 32 bits each


@dataclass(frozen=True)
class Draws:
    """The numbers that belong to the elements of one tensor of one adapter (Salmon et al., 2011: Philox).

    Args:
        seed: the user's.
        fingerprint: of the adapter.
        tensor: the module and which of its tensors.
    """

    seed: int
    fingerprint: str
    tensor: str

    def numbers(self, first: int, count: int) -> Float32:
        """Those of `count` elements in row-major order from `first` on: multiples of 2^-24 in [0, 1)."""
        key = hashlib.sha256(f"{self.seed}\0{self.fingerprint}\0{self.tensor}".encode()).digest()
        bits = np.random.Philox(key=int.from_bytes(key[:16], "little"))
        bits.advance(first // _EIGHT)
        skipped = first % _EIGHT
        words = bits.random_raw(-(-(skipped + count) // 2)).view("<u4")[skipped : skipped + count]
        return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
