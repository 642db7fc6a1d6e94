"""What a threshold over a stream asks of host arrays: see `pamctl_kernels.stream.BackEnd`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pamctl_kernels.host.blocks import Bits, blocks, magnitude_of
from pamctl_kernels.leaf import format_of
from pamctl_kernels.stream import Within

_SAMPLED = 61  # one weight in so many: a prime, so that a sample of rows is not one of a few columns


def sampled_magnitudes(name: str, x: Any) -> Bits:
    form = format_of(name, x)
    step = _SAMPLED if x.size > _SAMPLED else 1
    sample: Bits = x.reshape(-1)[::step].view(form.integer) & form.magnitude_mask
    return sample


def magnitudes_within(name: str, x: Any, low: int, high: int) -> Within:
    form = format_of(name, x)
    over, inside = 0, [np.empty(0, form.integer)]
    for block in blocks(x.shape):
        magnitudes = magnitude_of(name, x[block].view(form.integer).ravel(), form)
        outside, under = magnitudes >= high, magnitudes < low
        over += int(np.count_nonzero(outside))
        outside |= under
        inside.append(magnitudes[~outside])
    return Within(over, np.concatenate(inside))


def counts_reaching(name: str, x: Any, bits: Sequence[int]) -> Bits:
    form = format_of(name, x)
    counts = np.zeros(len(bits) + 1, np.int64)
    for block in blocks(x.shape):
        magnitudes = magnitude_of(name, x[block].view(form.integer).ravel(), form)
        counts[:-1] += [np.count_nonzero(magnitudes >= bound) for bound in bits]
    return counts
