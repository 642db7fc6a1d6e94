"""Host arrays cut into cache-sized blocks, and the magnitudes of what lies in them."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import numpy as np

from pamctl_kernels.leaf import FloatFormat, format_of
from pamctl_kernels.tree import map_tree

Bits = np.ndarray[Any, np.dtype[Any]]
Block = tuple[Any, ...]

Result = TypeVar("Result")

BLOCK = (
    1 << 17
)  # elements: an array of 512 kB and its few companions stay in a cache; below, calls cost more than work
_LARGE = 1 << 22  # elements from which an array is worth a second thread


def over_blocks(work: Callable[[Iterator[Block]], Result], shape: tuple[int, ...]) -> list[Result]:
    """`work` on all blocks of an array of `shape`; of a large one, on each half of them in its own thread.

    The halves are the same on every run, and their results come in order. `work` makes its own buffers.
    """
    if math.prod(shape) < _LARGE or (os.cpu_count() or 1) < 2:
        return [work(blocks(shape))]
    every = list(blocks(shape))
    halves = every[: len(every) // 2], every[len(every) // 2 :]
    with ThreadPoolExecutor(len(halves)) as threads:
        running = [threads.submit(copy_context().run, work, iter(half)) for half in halves]
        return [each.result() for each in running]


def blocks(shape: tuple[int, ...], prefix: Block = ()) -> Iterator[Block]:
    """Indices that cut an array of `shape` into pieces of at most `BLOCK` elements, in memory order."""
    if math.prod(shape) <= BLOCK:
        yield (*prefix, ...)
        return
    step = max(BLOCK // math.prod(shape[1:]), 1)
    for start in range(0, shape[0], step):
        block = slice(start, start + step)
        if step == 1:
            yield from blocks(shape[1:], (*prefix, block))
        else:
            yield (*prefix, block, ...)


def shaped(buffer: Bits, like: Bits) -> Bits:
    """The start of `buffer` in the shape of `like`."""
    return buffer[: like.size].reshape(like.shape)


def refuse_nan(name: str, x: Any) -> None:
    """ValueError if `x` holds NaN, in a pass or two that store nothing."""
    if x.dtype == np.float32:
        found = np.isnan(x.max(initial=0))
    else:
        form = format_of(name, x)
        bits = x.view(form.integer)
        unsigned = bits.view(f"u{bits.itemsize}")
        negative_infinity = form.infinity + form.magnitude_mask + 1
        found = bits.max(initial=0) > form.infinity or unsigned.max(initial=0) > negative_infinity
    if found:
        raise ValueError(f"{name} holds NaN")


def magnitudes_of(leaves: Sequence[tuple[str, Any]], form: FloatFormat) -> Iterator[Bits]:
    for name, leaf in leaves:
        for block in blocks(leaf.shape):
            yield magnitude_of(name, leaf[block].view(form.integer), form)


def all_magnitudes(leaves: Sequence[tuple[str, Any]], form: FloatFormat) -> Bits:
    return np.concatenate([magnitudes.ravel() for magnitudes in magnitudes_of(leaves, form)])


def magnitude_of(name: str, bits: Bits, form: FloatFormat) -> Bits:
    magnitude = bits & form.magnitude_mask
    if magnitude.max(initial=0) > form.infinity:
        raise ValueError(f"{name} holds NaN")
    return magnitude


def threshold_tree(w: Any, threshold: Any) -> Any:
    return threshold if type(threshold) in (dict, list, tuple) else map_tree(lambda *_: threshold, w)


def output_tree(like: Any, out: Any) -> Any:
    """`out`, checked to hold arrays like those of `like`, or new arrays."""
    if out is None:
        return map_tree(lambda _, leaf: np.empty_like(leaf), like)

    def check(name: str, leaf: Any, into: Any) -> Any:
        if not isinstance(into, np.ndarray) or into.dtype != leaf.dtype or into.shape != leaf.shape:
            raise ValueError(f"out at {name} is no numpy array of shape {leaf.shape} and dtype {leaf.dtype}")
        return into

    return map_tree(check, like, out)
