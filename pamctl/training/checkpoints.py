"""Checkpoints of a training run: where they lie, what they hold, which one a resumed run starts from."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp  # type: ignore[import-untyped]

from pamctl.refusal import Refusal
from pamctl.training.metrics_log import FILE_NAME

KEPT = 2
STEPS = "steps"


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimiser steps, with the bytes of the metrics log that belong to it."""

    step: int
    state: Any
    metrics_size: int


class Checkpoints:
    """The checkpoints beside an output, `<output>.checkpoints/`; made by `checkpoints_of`.

    Args:
        folder: where they lie.
        configuration: what decides the numbers of the run; a checkpoint of another one is refused.
        every: optimiser steps between two checkpoints.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], every: int) -> None:
        self.folder, self.every = folder, every
        self._configuration = dict(configuration)
        self._orbax = ocp.training.Checkpointer(
            folder.absolute() / STEPS,
            preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: Any, metrics_size: int) -> None:
        """Keep the state after `step`, and let go of the checkpoints before the last two."""
        record = {
            "configuration": self._configuration,
            "metrics_size": metrics_size,
            "digest": _digest(state),
        }
        try:
            self._orbax.save_checkpointables(step, {"state": state}, custom_metadata=record, overwrite=True)
        except Exception as fault:  # tensorstore tells a full disk as a ValueError
            if os.strerror(errno.ENOSPC) not in str(fault):
                raise
            raise Refusal(
                f"no space left to write a checkpoint in {self.folder}",
                "free some disk space, then run again with --resume",
            ) from fault

    def latest(self, like: Any, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, None where there is none.

        Args:
            like: a state of the same structure, shapes and dtypes.
            warn: called with a message for each checkpoint that had to be passed over.

        Raises:
            Refusal: the checkpoint was made with another configuration, or none of several can be read.
        """
        steps = sorted((found.step for found in self._orbax.checkpoints), reverse=True)
        for step in steps:
            try:
                return self._load(step, like)
            except Refusal:
                raise
            except Exception as fault:  # whatever a damaged file makes orbax raise
                warn(f"{self.folder / 'steps' / str(step)} is damaged and passed over: {_first_line(fault)}")
                self._orbax.delete(step)
        if steps:
            raise Refusal(f"no checkpoint in {self.folder} can be read", "add --force to start over")
        return None

    def close(self) -> None:
        """Let go of the folder's files."""
        self._orbax.close()

    def _load(self, step: int, like: Any) -> Checkpoint:
        record = self._orbax.checkpointables_metadata(step).custom_metadata
        if not isinstance(record, dict):
            raise ValueError("its record is missing")
        self._refuse_changes(record["configuration"])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        state = self._orbax.load_checkpointables(step, {"state": abstract})["state"]
        if (self.folder / FILE_NAME).stat().st_size < record["metrics_size"]:
            raise ValueError(f"{FILE_NAME} has lost events")
        if _digest(state) != record["digest"]:
            raise ValueError("its arrays are not the ones that were saved")
        return Checkpoint(step, state, record["metrics_size"])

    def _refuse_changes(self, before: Mapping[str, Any]) -> None:
        changes = differences(before, self._configuration)
        if changes:
            raise Refusal(
                f"{self.folder} was made with another configuration: {'; '.join(changes)}",
                "give the same options and inputs to go on, or --force to start over",
            )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one phrase per setting that is not the same, such as "seed was 0, is 1"."""
    names = dict.fromkeys((*before, *now))
    return [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def folder_of(out: Path) -> Path:
    """Return where the checkpoints of an output lie."""
    return out.with_name(out.name + ".checkpoints")


def has_checkpoints(out: Path) -> bool:
    """Whether an unfinished run left checkpoints for this output."""
    steps = folder_of(out) / STEPS
    return steps.is_dir() and any(child.name.isdigit() for child in steps.iterdir())


@contextmanager
def locked_folder_of(out: Path) -> Iterator[Path]:
    """Hold the checkpoint folder of an output against other processes; it vanishes if no checkpoint is in it.

    Raises:
        Refusal: another process is training into the same output.
    """
    folder = folder_of(out)
    handle = _locked(folder)
    if handle is None:
        raise Refusal(f"another process is training into {out}", "wait for it, or choose another output")
    try:
        yield folder
    finally:
        if not has_checkpoints(out):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked(folder: Path) -> int | None:
    """An open file that holds the folder's lock, or None where another process has it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        # The holder before may have removed the folder between the opening and the locking.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(folder / "lock")):
                return handle
        os.close(handle)


def _digest(state: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200]
