"""The digests of bases on this disk, kept so that gigabytes that have not changed are hashed once."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from pamctl.models.stored import StoredModel

_SECONDS_TO_SETTLE = 10
"""A file younger than that may change again within one tick of its file system's clock."""


def known_digest(model: StoredModel) -> str | None:
    """Return the digest of a model whose files are those that were hashed; None if none is known.

    A change of a file's numbers changes its status time, which no program can set.
    """
    try:
        found = _place(model).read_text(encoding="ascii")
    except (OSError, ValueError, RuntimeError):
        return None
    return found if re.fullmatch("[0-9a-f]{64}", found) else None


def keep_digest(model: StoredModel, digest: str, opened: float) -> None:
    """Keep a digest if no file has changed for a while before `opened`, and if the cache can be written.

    Args:
        opened: seconds since the epoch when the reading began.
    """
    try:
        if max(file.stat().st_ctime for file in model.files) > opened - _SECONDS_TO_SETTLE:
            return
        place = _place(model)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, draft = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(digest)
        os.replace(draft, place)
    except (OSError, RuntimeError):  # no home either
        return


def _place(model: StoredModel) -> Path:
    """The file that holds the digest, named by everything that it hangs on."""
    facts = hashlib.sha256(b"1\n")
    for file in model.files:
        found = file.stat()
        state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        facts.update(f"{file.resolve()} {state}\n".encode(errors="surrogateescape"))
    for leaf, layer, kind in (entry for group in model.groups for run in group for entry in run.tensors):
        facts.update(f"{leaf.name(layer)} {kind} {leaf.stored}\n".encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return folder / "pamctl" / "digests" / facts.hexdigest()
