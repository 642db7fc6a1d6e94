"""What a threshold over a stream asks of jax arrays: see `pamctl_kernels.stream.BackEnd`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamctl_kernels.device.arrays import magnitude_of, on_device
from pamctl_kernels.device.threshold import SAMPLE, count_at_least, places
from pamctl_kernels.leaf import format_of

_LIMIT = 2**31  # what an int32 count on a device may reach


def sampled_magnitudes(name: str, x: Any) -> jax.Array:
    if x.size >= _LIMIT:
        raise ValueError(f"{name} has {x.size} weights in one array: give fewer than 2^31")
    return _sampled(x, count=max(min(x.size // 64, SAMPLE), min(x.size, 64)))


def magnitudes_within(name: str, x: Any, low: int, high: int) -> None:
    """None: a device counts at the speed of its memory, and what it collects would have to be moved."""


def counts_reaching(name: str, x: Any, bits: Sequence[int]) -> jax.Array:
    infinity = format_of(name, x).infinity
    return _counts(x, on_device(np.asarray([*bits, infinity + 1], np.int32)))


@partial(jax.jit, static_argnames="count")
def _sampled(x: jax.Array, *, count: int) -> jax.Array:
    return magnitude_of(x[places(x.shape, count)]).ravel()


@jax.jit
def _counts(x: jax.Array, bits: jax.Array) -> jax.Array:
    return jnp.stack(count_at_least([x], list(bits)))
