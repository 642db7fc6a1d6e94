"""Histograms of the magnitudes of jax arrays, counted where the arrays lie."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamctl_kernels.device.arrays import is_nan, magnitude_of, on_device
from pamctl_kernels.leaf import FloatFormat, format_of

_LIMIT = 2**31  # what an int32 count on a device may reach


class Histogram:
    """See `pamctl_kernels.stream.Histogram`; counts stay on the device until they could overflow there."""

    def __init__(self, form: FloatFormat, upper: int | None) -> None:
        self._bins = 1 << (15 if upper is None else 16)
        self._upper = on_device(np.int32(-1 if upper is None else upper))
        self._total = np.zeros(self._bins, np.int64)
        self._pending: jax.Array | None = None
        self._seen = 0
        self._name = ""

    def add(self, name: str, array: Any) -> None:
        self._name = name
        if array.size >= _LIMIT:
            raise ValueError(f"{name} has {array.size} weights in one array: give fewer than 2^31")
        if self._seen + array.size >= _LIMIT:
            self._flush()
        counts = _count_upper(array) if self._bins == 1 << 15 else _count_lower(array, self._upper)
        self._pending = counts if self._pending is None else self._pending + counts
        self._seen += array.size

    def counts(self) -> Any:
        self._flush()
        return self._total

    def _flush(self) -> None:
        if self._pending is not None:
            *counts, nans = np.asarray(self._pending)
            if nans:
                raise ValueError(f"{self._name} holds NaN")
            self._total += counts
        self._pending, self._seen = None, 0


@jax.jit
def _count_upper(x: jax.Array) -> jax.Array:
    """(2^15 + 1,) int32: how often each upper half occurs, and last how many NaN there are."""
    upper = magnitude_of(x) >> _lower_bits(x)
    return _histogram(jnp.where(is_nan(x), 1 << 15, upper), (1 << 15) + 1)


@jax.jit
def _count_lower(x: jax.Array, upper: jax.Array) -> jax.Array:
    """(2^16 + 1,) int32: how often each lower half occurs below `upper`, and last 0."""
    magnitude = magnitude_of(x)
    inside = (magnitude >> _lower_bits(x)) == upper
    counts = _histogram(jnp.where(inside, magnitude & 0xFFFF, 1 << 16), (1 << 16) + 1)
    return counts.at[-1].set(0)


def _lower_bits(x: jax.Array) -> int:
    return format_of("x", x).magnitude_mask.bit_length() - 15


def _histogram(index: jax.Array, bins: int) -> jax.Array:
    """Not of the ravelled index: that of a sharded array would be gathered first."""
    return jnp.zeros(bins, jnp.int32).at[index].add(1, mode="promise_in_bounds")
