"""Checkpoints of a training run: where they lie, what they hold, which one a resumed run starts from."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp  # type: ignore[import-untyped]

from pamctl.orbax_saving import orbax_saving, orbax_silenced
from pamctl.refusal import Refusal
from pamctl.training.metrics_log import FILE_NAME
from pamctl.whole_output import disk_faults_named, whole_file

KEPT = 2
STEPS = "steps"


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimiser steps, with the bytes of the metrics log that belong to it."""

    step: int
    state: Any
    metrics_size: int


class Checkpoints:
    """The checkpoints beside an output: arrays by orbax, and a record of each that vouches for its files.

    A checkpoint counts once its record is there. Files are checked before orbax reads them, because its
    readers run in the background and tell of a damaged file in ways that cannot be caught.

    Args:
        folder: where they lie, `<output>.checkpoints/`.
        configuration: what decides the numbers of the run; a checkpoint of another one is refused.
        every: optimiser steps between two checkpoints.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], every: int) -> None:
        self.folder, self.every = folder, every
        self._configuration = dict(configuration)
        self._arrays, self._records = folder / STEPS / "arrays", _records(folder)

    def save(self, step: int, state: Any, metrics_size: int) -> None:
        """Keep the state after `step`, and let go of the checkpoints before the last two."""
        with disk_faults_named(self.folder), orbax_saving():
            self._orbax.save_checkpointables(step, {"state": state}, overwrite=True)
        record = {
            "configuration": self._configuration,
            "metrics_size": metrics_size,
            "files": _digests(self._arrays / str(step)),
        }
        with whole_file(self._record(step), force=True) as draft:
            draft.write_text(json.dumps(record), encoding="utf-8")
        kept = {found.step for found in self._orbax.checkpoints}
        for before in self._steps():
            if before not in kept:
                self._record(before).unlink()

    def latest(self, like: Any, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none.

        Args:
            like: a state of the same structure, shapes and dtypes.
            warn: called with a message for each checkpoint that had to be passed over.

        Raises:
            Refusal: the checkpoint was made with another configuration, or none of several is whole.
        """
        steps = self._steps()
        for step in steps:
            try:
                record = self._checked_record(step)
            except (ValueError, KeyError, OSError) as fault:
                warn(f"checkpoint {self._arrays / str(step)} is damaged and passed over: {fault}")
                shutil.rmtree(self._arrays / str(step), ignore_errors=True)
                self._record(step).unlink()
                continue
            return Checkpoint(step, self._load(step, like), record["metrics_size"])
        if steps:
            raise Refusal(f"no checkpoint in {self.folder} can be read", "run again to start over")
        return None

    def close(self) -> None:
        """Let go of the folder's files."""
        if "_orbax" in self.__dict__:
            # Every save was waited for; closing would only raise the fault of the last one again.
            with orbax_silenced(), suppress(Exception):
                self._orbax.close()

    @cached_property
    def _orbax(self) -> Any:
        return ocp.training.Checkpointer(
            self._arrays.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
            cleanup_tmp_directories=True,
        )

    def _steps(self) -> list[int]:
        return sorted((int(record.stem) for record in self._records.glob("*.json")), reverse=True)

    def _record(self, step: int) -> Path:
        return self._records / f"{step}.json"

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
        return self._orbax.load_checkpointables(step, {"state": abstract})["state"]


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


def _records(folder: Path) -> Path:
    return folder / STEPS / "records"


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by path."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                digests[str(file.relative_to(folder))] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests
