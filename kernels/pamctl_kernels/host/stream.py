"""Histograms of the magnitudes of host arrays."""

from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import Bits, blocks
from pamctl_kernels.leaf import FloatFormat


class Histogram:
    """See `pamctl_kernels.stream.Histogram`; one buffer of indices serves every block."""

    def __init__(self, form: FloatFormat, upper: int | None) -> None:
        self._form, self._upper = form, upper
        self._shift = 8 * form.integer.itemsize - 16
        self._counts = np.zeros(1 << (15 if upper is None else 16), np.int64)
        self._infinite = form.infinity >> self._shift

    def add(self, name: str, array: Any) -> None:
        for block in blocks(array.shape):
            bits = array[block].view(self._form.integer).ravel()
            if self._upper is None:
                self._count_upper(name, bits)
            else:
                self._count_lower(bits)

    def counts(self) -> Bits:
        return self._counts

    def _count_upper(self, name: str, bits: Bits) -> None:
        index = np.right_shift(bits, self._shift) if self._shift else bits
        counts = np.bincount((index & 0x7FFF).astype(np.intp), minlength=self._counts.size)
        if counts[self._infinite :].any() and (bits & self._form.magnitude_mask).max() > self._form.infinity:
            raise ValueError(f"{name} holds NaN")
        self._counts += counts

    def _count_lower(self, bits: Bits) -> None:
        inside = (bits >> self._shift) & 0x7FFF == self._upper
        self._counts += np.bincount(bits[inside] & 0xFFFF, minlength=self._counts.size)
