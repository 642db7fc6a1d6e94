"""Output that is complete or absent: written beside its place, flushed to disk, then renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pamctl.refusal import Refusal


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Refuse a path that is taken, or whose folder cannot be written, before any work is done."""
    if path.exists() and not force:
        raise Refusal(f"{path} already exists", "choose another output, or add --force to replace it")
    parent = _nearest_existing(path.absolute().parent)
    if not parent.is_dir():
        raise Refusal(f"{parent} is a file, so {path} cannot be made in it", "choose another output")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Refusal(f"{parent} is not writable", "choose an output in a folder you may write to")


@contextmanager
def whole_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well and vanishes otherwise."""
    refuse_existing(path, force=force)
    with disk_faults_named(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.absolute().parent))
        try:
            yield draft
            for file in sorted(draft.rglob("*")):
                _flush(file)
            _flush(draft)
            draft.chmod(0o777 & ~_umask())
            _replace(draft, path)
            _flush(path.absolute().parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a path to write to that becomes `path` when the block ends well and vanishes otherwise."""
    refuse_existing(path, force=force)
    with disk_faults_named(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        parent = path.absolute().parent
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.chmod(0o666 & ~_umask())
            _flush(draft)
            draft.replace(path)
            _flush(path.absolute().parent)
        finally:
            draft.unlink(missing_ok=True)


def _replace(draft: Path, path: Path) -> None:
    if not path.exists():
        draft.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".replaced", dir=path.absolute().parent))
    path.rename(old / "old")
    draft.rename(path)
    shutil.rmtree(old)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def disk_faults_named(path: Path) -> Iterator[None]:
    """Turn the faults of a disk on which `path` is written into a Refusal that names it."""
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(f"no space left to write {path}", "free some disk space, then run again") from fault
        if fault.errno == errno.EFBIG:
            raise Refusal(
                f"{path} cannot be written: {fault.strerror}",
                "raise the limit with ulimit -f, then run again",
            ) from fault
        if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Refusal(
                f"{path} cannot be written: {fault.strerror}", "choose a folder you may write to"
            ) from fault
        raise
