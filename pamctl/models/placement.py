"""Where the numbers of one parameter lie while they arrive: a buffer for each part that a device holds."""

from typing import Any, Protocol

import jax
import numpy as np

from pamctl.models.leaves import Leaf

_ALIGNMENT = 64  # jax takes a host buffer over without a copy where it starts at a multiple of so many bytes

Box = tuple[tuple[int, int], ...]
"""First place and end on each axis."""


class Sharding(Protocol):
    """Says how a parameter lies over devices."""

    def __call__(self, shape: tuple[int, ...], dtype: Any, *, stacked: bool) -> jax.sharding.Sharding: ...


class Placement:
    """Buffers for what the devices of this process hold of a parameter, filled row by row.

    Args:
        dtype: in memory.
        sharding: None puts all of it on the default device.
    """

    def __init__(self, leaf: Leaf, dtype: np.dtype[Any], sharding: Sharding | None = None) -> None:
        self.leaf, self.dtype = leaf, dtype
        self._sharding, places = None, {None: (slice(None),) * len(leaf.shape)}
        if sharding is not None:
            self._sharding = sharding(leaf.shape, dtype, stacked=leaf.stacked)
            places = self._sharding.addressable_devices_indices_map(leaf.shape)  # type: ignore[assignment]
        self._box_of = {device: _box(place, leaf.shape) for device, place in places.items()}
        self._buffers = {box: _aligned_empty(box, dtype) for box in set(self._box_of.values())}

    def room(self, layer: int, start: int, stop: int) -> np.ndarray | None:
        """Return the one place where rows of a layer belong, contiguous; None where there is no such."""
        found = self._overlaps(layer, start, stop)
        if len(found) != 1:
            return None
        inside, part = found[0]
        whole = (slice(0, stop - start), *(slice(0, size) for size in self.leaf.one[1:]))
        return part if inside == whole and part.flags.c_contiguous else None

    def put(self, layer: int, start: int, values: np.ndarray) -> None:
        """Copy rows of a layer to wherever they belong, rounded to the dtype in memory."""
        for inside, part in self._overlaps(layer, start, start + len(values)):
            part[...] = values[inside]

    def array(self) -> jax.Array:
        """Hand the buffers over to the devices; nothing else may hold them after that."""
        buffers, self._buffers = self._buffers, {}
        if self._sharding is None:
            (buffer,) = buffers.values()
            return jax.block_until_ready(jax.device_put(buffer))
        parts = [jax.device_put(buffers[box], device) for device, box in self._box_of.items()]
        whole = jax.make_array_from_single_device_arrays(self.leaf.shape, self._sharding, parts)
        return jax.block_until_ready(whole)

    def _overlaps(self, layer: int, start: int, stop: int) -> list[tuple[tuple[slice, ...], np.ndarray]]:
        """Return which part of some rows goes into each buffer, and the place in it."""
        asked = ((start, stop), *((0, size) for size in self.leaf.one[1:]))
        found = []
        for box, buffer in self._buffers.items():
            if self.leaf.stacked:
                (first, end), *box = box  # type: ignore[assignment]
                if not first <= layer < end:
                    continue
                buffer = buffer[layer - first]
            common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(asked, box, strict=True)]
            if all(a < b for a, b in common):
                inside = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, asked, strict=True))
                there = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, box, strict=True))
                found.append((inside, buffer[there]))
        return found


def _box(place: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    return tuple(part.indices(size)[:2] for part, size in zip(place, shape, strict=True))


def _aligned_empty(box: Box, dtype: np.dtype[Any]) -> np.ndarray:
    shape = tuple(end - first for first, end in box)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
