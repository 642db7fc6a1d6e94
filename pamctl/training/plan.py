"""What a training run would do: its settings, steps, tokens and memory, with every input checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np

from pamctl.models.leaves import model_leaves
from pamctl.models.trees import Tree
from pamctl.training.checkpoints import KEPT
from pamctl.training.configuration import Configuration, Settings
from pamctl.training.loop import Run
from pamctl.training.memory import StepMemory, step_memory
from pamctl.training.metrics_log import FILE_NAME
from pamctl.training.task_run import (
    CHECKPOINT_EVERY,
    Reference,
    prepared_run,
    references_of,
    refuse_early,
)


@dataclass(frozen=True)
class Plan:
    """What `train_task` would do.

    Attributes:
        parameters, trained_parameters: numbers in the base, and in the adapter.
        tokens: of images and texts that all steps together see; what stands for padding does not count.
        devices: that share the work.
        memory: of one of them.
        notes: what to know before starting.
    """

    output: Path
    configuration: Configuration
    examples: int
    parameters: int
    trained_parameters: int
    tokens: int
    devices: int
    memory: StepMemory
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        return {
            "output": str(self.output),
            "files": ["adapter_config.json", "adapter_model.safetensors", "pamctl.json", FILE_NAME],
            "configuration": self.configuration.to_json(),
            "examples": self.examples,
            "parameters": self.parameters,
            "trained_parameters": self.trained_parameters,
            "tokens": self.tokens,
            "devices": self.devices,
            "memory": self.memory.to_json(),
            "notes": list(self.notes),
        }


def plan_task(
    task: Reference | Sequence[Reference],
    out: Reference,
    *,
    base: str | None = None,
    global_adapter: Reference | None = None,
    previous: Reference | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    kept: int = KEPT,
    resume: bool = False,
    force: bool = False,
    **settings: Unpack[Settings],
) -> Plan:
    """Resolve every setting and check every input as `train_task` does, compile a step, and write nothing.

    Arguments and errors are those of `train_task`.
    """
    out, tasks = Path(out), references_of(task)
    refuse_early(
        tasks,
        out,
        settings,
        checkpoint_every,
        kept,
        global_adapter is not None,
        resume=resume,
        force=force,
    )
    prepared = prepared_run(tasks, base, global_adapter, previous, settings)
    run = prepared.run
    memory = step_memory(run)
    notes = prepared.notes
    if memory.fits is False:
        notes += (f"a device has {memory.available:,} bytes and {memory.needed:,} are needed",)
    return Plan(
        output=out,
        configuration=run.configuration,
        examples=len(run.split),
        parameters=sum(math.prod(leaf.shape) for leaf in model_leaves(run.base.config)),
        trained_parameters=_size(run.start),
        tokens=_tokens(run),
        devices=run.base.devices.mesh.size,
        memory=memory,
        notes=notes,
    )


def _tokens(run: Run) -> int:
    seen = run.configuration.steps * len(run.order(1))
    text = float(np.asarray(run.split.texts.length).mean())
    return round(seen * (run.split.frames * run.base.config.vision.image_tokens + text))


def _size(tree: Tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
