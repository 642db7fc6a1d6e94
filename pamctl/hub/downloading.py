"""When one file is downloaded: resumed where it stopped, and kept with the hash that the Hub states only."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pamctl.hub.client import WHO
from pamctl.hub.refusals import status_of
from pamctl.refusal import Refusal


def download(url: str, blob: Path, size: int | None, name: str) -> None:
    """Download beside the blob, going on where an earlier try stopped; a right hash makes it the blob.

    Plain HTTP, also where the Hub offers Xet: only so can a download be resumed by another process.

    Args:
        blob: where it goes; its name is the hash that the Hub states.
        size: in bytes, as far as the Hub states it.
        name: to call it by.

    Raises:
        Refusal: it came damaged; nothing of it is kept. Or it is larger than the Hub sends over plain HTTP.
            Or it broke off each time that the client tried; what came is kept.
        HTTPError, OSError: of the Hub or the disk; what came is kept.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if size is not None and size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise Refusal(
            f"{name} has {size:,} bytes, more than the Hub sends over plain HTTP",
            "fetch it with hf download, then name the local folder",
        )
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _held(blob.with_name(f"{blob.name}.pamctl-incomplete")) as (partial, file):
        if blob.is_file():
            partial.unlink()
            return
        have = os.fstat(file.fileno()).st_size
        if size is not None and have > size:
            file.truncate(0)
            have = 0
        headers = {**build_hf_headers(**WHO), "accept-encoding": "identity"}
        try:
            http_get(
                url, file, resume_size=have, headers=headers, expected_size=size, displayed_filename=name
            )
        except (errors.HTTPError, OSError) as fault:
            if not _is_for_the_hash_to_tell(fault):
                if file.tell() == 0:
                    partial.unlink()
                if isinstance(fault, errors.HTTPError) and status_of(fault) is None:
                    raise _broken_off(name, file.tell(), size) from fault
                raise
        file.flush()
        os.fsync(file.fileno())
        if not _is_whole(partial, size, blob.name):
            partial.unlink()
            raise Refusal(
                f"{name} came damaged: it is not what the Hub says it is",
                "run again; it was not kept. If it stays so, ask the repository's owner to upload it again",
            )
        partial.replace(blob)


def _broken_off(name: str, kept: int, size: int | None) -> Refusal:
    whole = "" if size is None else f" of {size:,}"
    return Refusal(
        f"the download of {name} broke off, with {kept:,}{whole} bytes kept",
        "run again: it goes on from there; if it stays so, check the network",
    )


def _is_for_the_hash_to_tell(fault: Exception) -> bool:
    """Whether a download ended, but by the client's count too early or, asked to go on, past the end."""
    from huggingface_hub import errors

    too_short = isinstance(fault, OSError) and fault.errno is None and not isinstance(fault, errors.HTTPError)
    return too_short or status_of(fault) == 416


@contextmanager
def _held(partial: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file to append to, for this process alone; another may have moved it away in its turn."""
    while True:
        with partial.open("ab") as file:
            with suppress(OSError):  # a file system without locks: the hash tells if two have written
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(partial.stat(), os.fstat(file.fileno()))
            except FileNotFoundError:
                ours = False
            if ours:
                yield partial, file
                return


def _is_whole(file: Path, size: int | None, etag: str) -> bool:
    """Whether a file has the size and hash that the Hub states: SHA-256 for LFS, else git's own."""
    found = file.stat().st_size
    if size is not None and found != size:
        return False
    if len(etag) not in (40, 64):
        return True
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(f"blob {found}\0".encode())
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == etag
