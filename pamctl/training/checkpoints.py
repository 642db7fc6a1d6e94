"""Checkpoints of a training run: where they lie, what they hold, which one a resumed run starts from."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from orbax.checkpoint import v1 as ocp  # type: ignore[import-untyped]

from pamctl import __version__
from pamctl.distributed import barrier, decided_by_main, is_main
from pamctl.orbax_saving import interrupt_deferred, saved_in_background
from pamctl.refusal import Refusal
from pamctl.training.metrics_log import FILE_NAME
from pamctl.whole_output import disk_faults_named, whole_file

KEPT = 2
STEPS = "steps"


class InUse(Refusal):
    """Another process is training into the same output."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimiser steps, with the bytes of the metrics log that belong to it."""

    step: int
    state: Any
    metrics_size: int


class Checkpoints:
    """The checkpoints beside an output: arrays by orbax, and a record of each that vouches for its files.

    A checkpoint counts once its record is there, and one before it goes only then. Files are checked before
    orbax reads them, because its readers run in the background and tell of a damaged file in ways that
    cannot be caught. Of several processes all call the same methods with the same arguments; process 0 writes
    records, removes and warns.

    Args:
        folder: where they lie, `<output>.checkpoints/`.
        configuration: what decides the numbers of the run; a checkpoint of another one is refused.
        every: optimiser steps between two checkpoints.
        kept: how many of the newest are kept.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], every: int, kept: int = KEPT) -> None:
        self.folder, self.every = folder, every
        self._configuration, self._kept = dict(configuration), kept
        self._arrays, self._records = folder / STEPS / "arrays", _records(folder)
        self._under_way: Future[None] | None = None

    def save(self, step: int, state: Any, metrics_size: int) -> None:
        """Settle the save before, begin to save the state after `step` and return while it is written.

        Args:
            state: arrays, which may be donated as soon as this returns.
            metrics_size: bytes of the metrics log that belong to the state.

        Raises:
            Refusal: the disk is full, for this save or the one before.
        """
        self.settle()
        # On a CPU orbax writes from the memory that it is given, which the next step overwrites.
        copy = jax.tree.map(jnp.copy, state)
        # Ctrl-C waits until there is something for `close` to wait for: jax's exit would wait for ever.
        with disk_faults_named(self.folder), interrupt_deferred():
            self._under_way = saved_in_background(
                lambda: self._begin(step, copy),
                lambda: self._vouch_for(step, metrics_size),
            )

    def settle(self) -> None:
        """Wait until the checkpoint that is being saved counts.

        Raises:
            Refusal: it could not be saved, because the disk is full.
        """
        if self._under_way is None:
            return
        saved, self._under_way = self._under_way, None
        with disk_faults_named(self.folder), interrupt_deferred():
            saved.result()
        barrier(f"a checkpoint in {self.folder}")

    def latest(self, like: Any, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none, and remove what is not whole.

        Args:
            like: a state of the same structure, shapes, dtypes and shardings.
            warn: called with a message for each checkpoint that had to be passed over, and where other
                versions of a library may give other bits.

        Raises:
            Refusal: the checkpoint was made with another configuration, or none of several is whole.
        """
        step, metrics_size = decided_by_main(lambda: self._newest_whole(warn))
        return Checkpoint(step, self._load(step, like), metrics_size) if step else None

    def close(self) -> None:
        """Wait for the save that is under way and let its fault be, which `settle` would have raised."""
        if self._under_way is not None:
            with interrupt_deferred():
                wait([self._under_way])
            self._under_way = None

    def remove(self) -> None:
        """Remove every checkpoint."""
        self.close()
        if is_main():
            shutil.rmtree(self.folder / STEPS, ignore_errors=True)

    def _begin(self, step: int, state: Any) -> Any:
        """Let orbax save the state; weights would hardly become smaller by compression, only later."""
        context = ocp.Context()
        context.array.saving.use_compression = False
        with context:
            return ocp.save_checkpointables_async((self._arrays / str(step)).absolute(), {"state": state})

    def _vouch_for(self, step: int, metrics_size: int) -> None:
        """Write the record of arrays that are on disk, and let go of the checkpoints before the last ones."""
        if not is_main():
            return
        record = {
            "step": step,
            "configuration": self._configuration,
            "versions": _versions(),
            "metrics_size": metrics_size,
            "files": _digests(self._arrays / str(step)),
        }
        with whole_file(self._record(step), force=True) as draft:
            draft.write_text(json.dumps(record), encoding="utf-8")
        for before in self._steps()[self._kept :]:
            self._remove(before)

    def _newest_whole(self, warn: Callable[[str], None]) -> tuple[int, int]:
        """The step and metrics size of the newest checkpoint that is whole, zeros where there is none."""
        self._remove_unfinished(warn)
        steps = self._steps()
        for step in steps:
            try:
                record = self._checked_record(step)
                changes = differences(record["versions"], _versions())
            except (ValueError, KeyError, OSError) as fault:
                warn(f"checkpoint {self._arrays / str(step)} is damaged and passed over: {fault}")
                self._remove(step)
                continue
            if changes:
                warn(
                    f"numbers may differ in their last bits from a run without a break: {'; '.join(changes)}"
                )
            return step, record["metrics_size"]
        if steps:
            raise Refusal(f"no checkpoint in {self.folder} can be read", "run again to start over")
        return 0, 0

    def _remove_unfinished(self, warn: Callable[[str], None]) -> None:
        """Remove arrays that no record vouches for: the run was killed while they were saved."""
        recorded = {str(step) for step in self._steps()}
        for arrays in self._arrays.glob("*"):
            if arrays.name not in recorded:
                if arrays.name.isdecimal():
                    warn(f"checkpoint {arrays} was not finished and is passed over")
                shutil.rmtree(arrays, ignore_errors=True)

    def _steps(self) -> list[int]:
        return sorted((int(record.stem) for record in self._records.glob("*.json")), reverse=True)

    def _record(self, step: int) -> Path:
        return self._records / f"{step}.json"

    def _remove(self, step: int) -> None:
        self._record(step).unlink()
        shutil.rmtree(self._arrays / str(step), ignore_errors=True)

    def _checked_record(self, step: int) -> dict[str, Any]:
        """The record of a checkpoint whose files are as they were written; ValueError tells which is not."""
        record: dict[str, Any] = json.loads(self._record(step).read_text(encoding="utf-8"))
        changes = differences(record["configuration"], self._configuration)
        if changes:
            raise Refusal(
                f"{self.folder} was made with another configuration: {'; '.join(changes)}",
                "give the same options and inputs to go on, or --force to start over",
            )
        found = _digests(self._arrays / str(step))
        for name, digest in record["files"].items():
            if found.get(name) != digest:
                raise ValueError(f"{name} is {'not what was written' if name in found else 'missing'}")
        if (self.folder / FILE_NAME).stat().st_size < record["metrics_size"]:
            raise ValueError(f"{FILE_NAME} has lost events")
        return record

    def _load(self, step: int, like: Any) -> Any:
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        return ocp.load_checkpointables((self._arrays / str(step)).absolute(), {"state": abstract})["state"]


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
    return any(_records(folder_of(out)).glob("*.json"))


@contextmanager
def locked_folder_of(out: Path) -> Iterator[Path]:
    """Hold the checkpoint folder of an output against other runs; it vanishes if no checkpoint is in it.

    Of several processes of one run process 0 holds it.

    Raises:
        InUse: another process is training into the same output.
    """
    folder = folder_of(out)
    handle = decided_by_main(lambda: _locked(folder))
    if handle is None:
        raise InUse(f"another process is training into {out}", "wait for it, or choose another output")
    try:
        yield folder
    finally:
        if is_main():
            if not has_checkpoints(out):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """An open file that holds the folder's lock, None where another process has it."""
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


def _records(folder: Path) -> Path:
    return folder / STEPS / "records"


def _versions() -> dict[str, str]:
    """What the bits of a run depend on beside its configuration."""
    return {"pamctl": __version__, "jax": jax.__version__, "optax": optax.__version__}


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by path."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                digests[str(file.relative_to(folder))] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests
