"""Output that is complete or absent: written beside its place, flushed to disk, then renamed."""

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal

Known = Callable[[str], object]
_DRAFT = ".partial"
_AT_FDCWD, _EXCHANGE = -100, 2
"""What Linux calls AT_FDCWD and RENAME_EXCHANGE."""
_SECONDS_TO_LOCK = 10
"""More than passes between making a draft and locking it."""


def refuse_existing(
    path: Path, *, force: bool = False, file: bool = False, known: Known | None = None
) -> None:
    """Refuse a path that is taken, or whose folder cannot be written, before any work is done.

    Args:
        force: a folder may be replaced by a folder, a file by a file.
        file: the output is one file, not a folder.
        known: whether a name may be in a folder that is to be replaced: all are if it was such an output.
            None: any name may.
    """
    if path.exists() or path.is_symlink():
        _refuse_irreplaceable(path, force, file, known)
    parent = _nearest_existing(path.absolute().parent)
    if not parent.is_dir():
        raise Refusal(f"{parent} is a file, so {path} cannot be made in it", "choose another output")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Refusal(f"{parent} is not writable", "choose an output in a folder you may write to")


def _refuse_irreplaceable(path: Path, force: bool, file: bool, known: Known | None) -> None:
    if not force:
        raise Refusal(f"{path} already exists", "choose another output, or add --force to replace it")
    fault, foreign = None, []
    if path.is_dir() and known is not None:
        foreign = sorted(entry.name for entry in path.iterdir() if not known(entry.name))
    if not (path.is_dir() or path.is_file()):
        fault = "is neither a file nor a folder, and is not replaced"
    elif path.is_dir() and file:
        fault = "is a folder, and the output is one file"
    elif path.is_file() and not file:
        fault = "is a file, and the output is a folder"
    elif path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
        fault = "holds the folder you are in, and --force would replace it whole"
    elif foreign:
        fault = f"holds {foreign[0]}, which is no part of such an output, and --force would delete it"
    if fault:
        raise Refusal(f"{path} {fault}", "choose another output")


@contextmanager
def whole_folder(path: Path, *, force: bool = False, known: Known | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well and vanishes otherwise.

    Arguments and errors are those of `refuse_existing`.
    """
    with _draft_of(path, tempfile.mkdtemp, force=force, known=known) as draft:
        yield draft
        for file in sorted(draft.rglob("*")):
            _flush(file)
        _flush(draft)
        draft.chmod(0o777 & ~_umask())
        if force:
            _replace(draft, path)
        else:
            _rename_folder(draft, path)


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a path to write to that becomes `path` when the block ends well and vanishes otherwise."""
    with _draft_of(path, _empty_file, force=force, file=True) as draft:
        yield draft
        draft.chmod(0o666 & ~_umask())
        _flush(draft)
        if force:
            draft.replace(path)
        else:
            _link_file(draft, path)


@contextmanager
def _draft_of(
    path: Path,
    make: Callable[..., str],
    *,
    force: bool,
    file: bool = False,
    known: Known | None = None,
) -> Iterator[Path]:
    """Yield what `make` made beside `path`, locked while it is written; take it away if it is still there."""
    refuse_existing(path, force=force, file=file, known=known)
    parent, prefix = path.absolute().parent, f".{path.name}."
    with disk_faults_named(path):
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(f"{glob.escape(prefix)}*{_DRAFT}"):
            _remove_if_abandoned(old)
        draft = Path(make(prefix=prefix, suffix=_DRAFT, dir=parent))
        handle = os.open(draft, os.O_RDONLY)
        try:
            _locked(handle)
            yield draft
            _flush(parent)
        finally:
            os.close(handle)
            _remove(draft)


def _empty_file(**place: Any) -> str:
    handle, name = tempfile.mkstemp(**place)
    os.close(handle)
    return name


def _remove_if_abandoned(draft: Path) -> None:
    """Remove what a killed process left: nobody holds it, and it is too old to be just about to be held."""
    try:
        handle = os.open(draft, os.O_RDONLY)
    except OSError:
        return
    try:
        if time.time() - os.fstat(handle).st_mtime > _SECONDS_TO_LOCK and _locked(handle):
            _remove(draft)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by its writer, or a file system without locks
        return False
    return True


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _rename_folder(draft: Path, path: Path) -> None:
    """Give a folder its name, refused where another process took it meanwhile."""
    try:
        draft.rename(path)
    except OSError as fault:
        if fault.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise _taken_meanwhile(path) from fault


def _link_file(draft: Path, path: Path) -> None:
    """Give a file its name, refused where another process took it meanwhile."""
    try:
        path.hardlink_to(draft)
    except FileExistsError as fault:
        raise _taken_meanwhile(path) from fault
    except OSError:  # a file system without links: the name was free a moment ago
        draft.replace(path)


def _taken_meanwhile(path: Path) -> Refusal:
    return Refusal(f"{path} already exists: another process wrote it meanwhile", "choose another output")


def _replace(draft: Path, path: Path) -> None:
    if not path.exists():
        draft.rename(path)
        return
    if not path.is_symlink() and _swapped(draft, path):
        return  # the old one has the draft's name now and goes as a draft does, even if this is killed
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".replaced", dir=path.absolute().parent))
    path.rename(old / "old")
    draft.rename(path)
    shutil.rmtree(old)


def _swapped(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system or the file system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)


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
