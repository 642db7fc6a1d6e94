"""Where arrays lie on the devices of a run: the mesh, what is sharded over it, and whose rows are whose."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import DTypeLike, NDArray

from pamctl.distributed import processes
from pamctl.refusal import Refusal, UsageRefusal

AXES = ("data", "fsdp")
SHARDED_FROM = 4 * 2**20  # bytes: gathering a smaller array takes longer than it is worth
SHARE_FOR_BASE = 0.5  # of a device's memory: the rest is for activations, gradients and the optimiser


@dataclass(frozen=True)
class Devices:
    """The devices of all processes, as a mesh with axes `data` and `fsdp`.

    A batch is sharded over both axes, the base over `fsdp` where it does not fit on one device, and
    everything else is replicated. On one device all of these are the same.
    """

    mesh: Mesh

    barrier = staticmethod(processes.barrier)
    agree = staticmethod(processes.agree)
    broadcast_text = staticmethod(processes.broadcast_text)

    @classmethod
    def of(cls, base_bytes: int = 0, fsdp: int | None = None) -> "Devices":
        """Take all devices.

        Args:
            base_bytes: size of the base's parameters in memory.
            fsdp: over how many devices the base is sharded; by default 1 if the base leaves half of a
                device's memory free, or if devices do not tell their memory, and otherwise all of them.

        Raises:
            UsageRefusal: `fsdp` does not divide the number of devices.
            Refusal: processes have different numbers of devices.
        """
        devices = jax.devices()
        _refuse_uneven(devices)
        if fsdp is None:
            fsdp = _default_fsdp(len(devices), base_bytes)
        if fsdp < 1 or len(devices) % fsdp:
            sizes = [str(size) for size in range(1, len(devices) + 1) if len(devices) % size == 0]
            raise UsageRefusal(
                f"fsdp {fsdp} does not divide {len(devices)} devices", f"use one of {', '.join(sizes)}"
            )
        # With Explicit axes, which are jax's default, indexing a sharded table is an error.
        return cls(Mesh(_arranged(devices, fsdp), AXES, axis_types=(AxisType.Auto,) * 2))

    @classmethod
    def alone(cls) -> "Devices":
        """Take one device of this process, for work too small to divide."""
        first = np.array(jax.local_devices()[:1], dtype=object).reshape(1, 1)
        return cls(Mesh(first, AXES, axis_types=(AxisType.Auto,) * 2))

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, the one that prints and writes."""
        return processes.is_main()

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def batch(self) -> NamedSharding:
        """Rows, the first dimension, divided among all devices."""
        return NamedSharding(self.mesh, P(AXES))

    def base_sharding(self, shape: tuple[int, ...], dtype: DTypeLike, *, stacked: bool) -> NamedSharding:
        """Return how a parameter of the base lies: its largest dimension over `fsdp`, or replicated if small.

        Args:
            stacked: whether dimension 0 counts layers, which are taken one by one and so never sharded.
        """
        fsdp = self.mesh.shape["fsdp"]
        axes = [axis for axis in range(int(stacked), len(shape)) if shape[axis] % fsdp == 0]
        small = math.prod(shape) * np.dtype(dtype).itemsize < SHARDED_FROM
        if fsdp == 1 or small or not axes:
            return self.replicated
        largest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(self.mesh, P(*[None] * largest, "fsdp"))

    def local_rows(self, batch_size: int) -> NDArray[np.int64]:
        """Return which rows of a global batch this process feeds, in the order `put_batch` wants them.

        Raises:
            UsageRefusal: the devices do not divide the batch.
        """
        count = self.mesh.size
        if batch_size < 1 or batch_size % count:
            below = batch_size // count * count
            sizes = f"{below} or {below + count}" if below > 0 else str(count)
            raise UsageRefusal(
                f"a batch of {batch_size} cannot be divided among {count} devices",
                f"use a batch size of {sizes}",
            )
        # Topology may scatter a process's devices over the mesh, so its rows need not be neighbours.
        indices = self.batch.addressable_devices_indices_map((batch_size,)).values()
        spans = sorted(index[0].indices(batch_size)[:2] for index in indices if index is not None)
        return np.concatenate([np.arange(*span) for span in spans])

    def put_batch(self, tree: Any) -> Any:
        """Put this process's rows of a batch on its devices, as its part of the global arrays.

        Args:
            tree: arrays (local rows, ...), the rows being those of `local_rows`.
        """
        return jax.make_array_from_process_local_data(self.batch, tree)


def _refuse_uneven(devices: list[jax.Device]) -> None:
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        fewest, most = min(counts, key=lambda i: counts[i]), max(counts, key=lambda i: counts[i])
        raise Refusal(
            f"process {fewest} has {counts[fewest]} devices and process {most} has {counts[most]}",
            "give every process the same number of devices",
        )


def _default_fsdp(count: int, base_bytes: int) -> int:
    stats = [device.memory_stats() for device in jax.local_devices()]
    limits = [found["bytes_limit"] for found in stats if found and "bytes_limit" in found]
    too_large = bool(limits) and base_bytes > SHARE_FOR_BASE * min(limits)
    # Limits differ a little from host to host, and a mesh that differs would be a deadlock.
    if not processes.agree(too_large):
        return 1
    # The dimensions of a model are powers of two times little: three or six devices would divide none.
    return count & -count


def _arranged(devices: list[jax.Device], fsdp: int) -> NDArray[Any]:
    """Devices as (data, fsdp), with neighbours of the network close by and slices, or GPU hosts, apart."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    within, data = math.gcd(fsdp, len(devices) // slices), len(devices) // fsdp
    across = fsdp // within
    if slices == 1:
        return mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(
        (len(devices) // slices // within, within),
        (slices // across, across),
        devices,
        allow_split_physical_axes=True,
    )
