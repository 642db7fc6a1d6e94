"""How much of a device's memory a training step takes, as the compiler counts it."""

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamctl.models.text import TextBatch
from pamctl.training.batches import Batch
from pamctl.training.epochs import Visits
from pamctl.training.loop import Run, StepNumbers, initial_state, train_step


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device while a step runs.

    Attributes:
        weights: the base.
        adapter: the factors, and the global adapter's where they are held against it.
        optimizer: Adam's moments.
        batch: images or features, and texts.
        activations: everything that the step makes in passing, gradients among it. None where the compiler
            does not tell.
        available: what the device has; on a CPU, the machine's memory. None where it does not tell.
    """

    weights: int
    adapter: int
    optimizer: int
    batch: int
    activations: int | None
    available: int | None

    @property
    def needed(self) -> int:
        """All of it that is known."""
        return self.weights + self.adapter + self.optimizer + self.batch + (self.activations or 0)

    @property
    def fits(self) -> bool | None:
        """Whether the device has that much; None where that is not known."""
        if self.available is None or self.activations is None:
            return None
        return self.needed <= self.available

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "needed": self.needed, "fits": self.fits}


def step_memory(run: Run) -> StepMemory:
    """Compile the widest step of a run and count what it takes; nothing is computed."""
    state, batch = initial_state(run.start, run.slow), _widest_batch(run)
    numbers = StepNumbers.of(run.configuration, run.base.devices.replicated)
    compiled = train_step.lower(
        run.base.config, run.base.parameters, state, batch, run.reference, numbers, **run.how
    ).compile()
    counted: Any = compiled.memory_analysis()
    held = {id(tree): tree for tree in (run.reference, run.anchor and run.anchor.lora)}
    limits = run.anchor.thresholds if run.anchor is not None else ()
    return StepMemory(
        weights=_on_one_device(run.base.parameters),
        adapter=_on_one_device((state.lora, state.slow, limits, list(held.values()))),
        optimizer=_on_one_device(state.optimizer),
        batch=_on_one_device(batch),
        activations=None if counted is None else int(counted.temp_size_in_bytes),
        available=_memory_of(jax.local_devices()[0]),
    )


def _widest_batch(run: Run) -> Batch:
    """The shapes of a batch that holds the split's longest text."""
    rows = np.zeros(len(run.order(1)), np.int64)
    image = run.split.images(Visits.first(rows[:1]))
    longest = replace(run.split.texts, tokens=run.split.texts.tokens[rows], prefix_length=rows, length=rows)

    def shaped(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(rows), *shape), dtype, sharding=run.base.devices.batch)

    texts: TextBatch = jax.tree.map(lambda leaf: shaped(leaf.shape[1:], jnp.int32), longest)
    return Batch(shaped(image.shape[1:], image.dtype), texts, shaped((), jnp.float32))


def _on_one_device(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of such arrays, that one device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _memory_of(device: jax.Device) -> int | None:
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (device.memory_stats() or {}).get("bytes_limit")
