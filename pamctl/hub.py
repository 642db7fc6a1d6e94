"""What a reference to the Hub stands for, how its files come into the cache and how a folder gets there.

The only file that knows huggingface_hub, which is imported late: it reads HF_HOME, HF_TOKEN, HF_HUB_OFFLINE
and HF_ENDPOINT when it is imported.
"""

import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pamctl import __version__
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.whole_output import disk_faults_named

_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.))(?!.*\.git$){_NAME}/{_NAME}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = r"(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/]*)"
_REFERENCE = re.compile(rf"(?P<repository>[^/@]+/[^/@]+)(?:@{_REVISION})?(?:/(?P<path>.*))?")
_PAGE = re.compile(
    rf"(?P<repository>[^/]+/[^/]+)(?:/(?:resolve|blob|tree|raw)/{_REVISION}(?:/(?P<path>.*))?)?"
)
_WHO: dict[str, Any] = {"library_name": "pamctl", "library_version": __version__}
_FORM = "hf://org/name, hf://org/name@revision or hf://org/name@revision/folder"


@dataclass(frozen=True)
class HubReference:
    """A place in a model repository.

    Args:
        repository: `org/name`.
        revision: branch, tag or commit; None for the main branch.
        path: of a folder or a file inside the repository; "" for its root.
    """

    repository: str
    revision: str | None
    path: str


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository, as far as it was fetched.

    Args:
        commit: the full hash that the revision stood for.
        folder: the local folder of the reference's path, or of its parent where the path is a file.
        files: every name the repository has there, relative to `folder`, fetched or not; without a network
            those that the cache holds.
        notes: what the user should know of how it was found.
    """

    repository: str
    commit: str
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def hub_reference(reference: str) -> HubReference | None:
    """What a text means as a reference to the Hub, or None if it cannot be one; nothing is asked of the Hub.

    It is `hf://org/name[@revision][/folder or file]`, the same without `hf://`, or the URL of a file or
    folder at huggingface.co, hf.co or HF_ENDPOINT. In a revision a `/` is written `%2F`, as in URLs; only
    `refs/pr/N` and `refs/convert/NAME` may have it plain, as everywhere on the Hub.

    Raises:
        UsageRefusal: `hf://` or a URL of the Hub, and then something that is no place in a model repository.
    """
    address = _address(reference)
    if address is None:
        return None
    pattern, text, sure = address
    match = pattern.fullmatch(text)
    fault = "that is no place in a model repository" if match is None else None
    if match is not None:
        revision, path = match["revision"], (match["path"] or "").rstrip("/")
        path = unquote(path) if pattern is _PAGE else path
        found = HubReference(match["repository"], None if revision is None else unquote(revision), path)
        fault = _fault(found)
    if fault is None:
        return found
    if not sure:
        return None
    raise UsageRefusal(f"{reference}: {fault}", f"write {_FORM}; a / in a revision is %2F")


def _address(reference: str) -> tuple[re.Pattern[str], str, bool] | None:
    """The pattern to read a reference by, its text less the Hub's address, and whether it had that."""
    if reference.startswith("hf://"):
        return _REFERENCE, reference.removeprefix("hf://").rstrip("/"), True
    if "://" not in reference:
        return _REFERENCE, reference.rstrip("/"), False
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    for site in (endpoint, "https://huggingface.co", "https://hf.co"):
        if site and reference.startswith(f"{site}/"):
            return _PAGE, re.split("[?#]", reference.removeprefix(f"{site}/"))[0].rstrip("/"), True
    return None


def _fault(reference: HubReference) -> str | None:
    """What is wrong with the parts of a reference."""
    kind = reference.repository.split("/")[0]
    if kind in ("datasets", "spaces", "kernels", "buckets", "models"):
        return f"it names one of the {kind}, where org/name is wanted"
    if not _REPOSITORY.fullmatch(reference.repository):
        return f"{reference.repository} is not a repository's name"
    revision = reference.revision
    if revision is not None and (not _is_inside(revision) or re.search(r"[\s~^:?*\[]|^-", revision)):
        return f"{revision!r} is not a revision"
    if reference.path and not _is_inside(reference.path):
        return f"{reference.path!r} is not a path inside a repository"
    return None


def _is_inside(path: str) -> bool:
    """Whether a path leads down only, and reads the same everywhere."""
    return "\\" not in path and path.isprintable() and not {"", ".", ".."} & set(path.split("/"))


def fetch(reference: HubReference, wanted: Callable[[Sequence[str]], Sequence[str]]) -> Snapshot:
    """Bring the wanted files of one commit into the Hub's cache.

    The revision is resolved to a commit once. Each file is held to the hash that the Hub states for it before
    it enters the cache. What was downloaded of a file before an interruption is kept for the next time.
    Without a network, or with HF_HUB_OFFLINE=1, what the cache holds is used.

    Args:
        wanted: chooses what to fetch among the names in the reference's folder (in its file's folder).

    Raises:
        Refusal: what is not there, not allowed, not reachable, damaged, or finds no room on the disk.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=reference.repository, repo_type="model")
    storage = Path(constants.HF_HUB_CACHE) / folder
    if constants.HF_HUB_OFFLINE:
        found = _cached(reference, wanted, storage)
        if found is None:
            raise Refusal(
                f"{_told(reference)} is not in the Hub's cache, and HF_HUB_OFFLINE is set",
                "unset HF_HUB_OFFLINE to fetch it, or name a local folder",
            )
        return found
    with _quietly(), _faults_told(reference):
        try:
            commit, files = _listing(reference)
        except errors.HTTPError as fault:
            found = _cached(reference, wanted, storage) if _is_unreachable(fault) else None
            if found is None:
                raise
            note = f"the Hub cannot be reached: {reference.repository} is the cache's, at {found.commit}"
            return replace(found, notes=(note,))
        folder, names = _names_at(reference, files)
        for name in wanted(names):
            if name not in names:
                raise _absent(reference, f"{folder}{name}", files)
            _into_cache(reference, commit, f"{folder}{name}", storage)
    _remember(storage, reference, commit)
    here = storage / "snapshots" / commit / folder
    return Snapshot(reference.repository, commit, here, tuple(names), ())


def _listing(reference: HubReference) -> tuple[str, list[str]]:
    """The commit a revision stands for and the names of all its files, in one request."""
    from huggingface_hub import HfApi, constants

    _refuse_bad_endpoint(constants.ENDPOINT)
    try:
        information = HfApi(**_WHO).model_info(
            reference.repository, revision=reference.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        commit, files = information.sha, information.siblings
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise _no_hub(constants.ENDPOINT) from fault
    if commit is None or files is None or not _COMMIT.fullmatch(commit):
        raise _no_hub(constants.ENDPOINT)
    return commit, [file.rfilename for file in files if _is_inside(file.rfilename)]


def _names_at(reference: HubReference, files: Sequence[str]) -> tuple[str, list[str]]:
    """The folder a reference means, with its / or empty, and the names below it."""
    path = reference.path
    if path in files:
        path = path.rpartition("/")[0]
    folder = f"{path}/" if path else ""
    names = sorted(name.removeprefix(folder) for name in files if name.startswith(folder))
    if not names:
        raise _absent(reference, path or "files", files)
    return folder, names


def _absent(reference: HubReference, path: str, files: Sequence[str]) -> Refusal:
    there = sorted({name.split("/")[0] for name in files})
    listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    return Refusal(
        f"{_told(reference)} holds no {path}", f"it has {listed}" if there else "check the name: it is empty"
    )


def _cached(
    reference: HubReference, wanted: Callable[[Sequence[str]], Sequence[str]], storage: Path
) -> Snapshot | None:
    """What the cache holds of a reference, or None where nothing that is wanted is there."""
    commit = reference.revision or "main"
    if not _COMMIT.fullmatch(commit):
        record = storage / "refs" / commit
        commit = record.read_text(encoding="utf-8").strip() if record.is_file() else ""
    root = storage / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not root.is_dir():
        return None
    files = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]
    path = reference.path
    if not any(name == path or name.startswith(f"{path}/" if path else "") for name in files):
        return None
    folder, names = _names_at(reference, files)
    try:
        chosen = wanted(names)
    except Refusal as refusal:
        raise Refusal(f"{refusal.what}, of which the cache has only a part", refusal.way_on) from refusal
    return Snapshot(reference.repository, commit, root / folder, tuple(names), ()) if chosen else None


def _remember(storage: Path, reference: HubReference, commit: str) -> None:
    """Record what a branch or tag stands for, where huggingface_hub does too, for times without a network."""
    if reference.revision == commit:
        return
    record = storage / "refs" / (reference.revision or "main")
    draft = record.with_name(f"{record.name}.{os.getpid()}")
    with suppress(OSError):  # a cache that others filled may be read-only
        record.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(commit, encoding="utf-8")
        draft.replace(record)


def _into_cache(reference: HubReference, commit: str, name: str, storage: Path) -> None:
    """Have one file in the cache's layout: a blob under its hash, and a link to it in the commit's folder."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    place = storage / "snapshots" / commit / name
    if place.is_file():
        return
    with disk_faults_named(place):
        url = hf_hub_url(reference.repository, name, revision=commit)
        metadata = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, **_WHO)
        if metadata.etag is None or not re.fullmatch(r"[\w-]+", metadata.etag):
            raise _no_hub(constants.ENDPOINT)
        blob = storage / "blobs" / metadata.etag
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.is_file():
            _download(url, blob, metadata.size, f"{reference.repository}/{name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            place.symlink_to(os.path.relpath(blob, place.parent))


def _download(url: str, blob: Path, size: int | None, name: str) -> None:
    """Download beside the blob, going on where an earlier try stopped; a right hash makes it the blob.

    Plain HTTP, also where the Hub offers Xet: only so can a download be resumed by another process.
    """
    from huggingface_hub import errors
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    with _held(blob.with_name(f"{blob.name}.pamctl-incomplete")) as (partial, file):
        if blob.is_file():
            partial.unlink()
            return
        have = os.fstat(file.fileno()).st_size
        if size is not None and have > size:
            file.truncate(0)
            have = 0
        headers = {**build_hf_headers(**_WHO), "accept-encoding": "identity"}
        try:
            http_get(
                url, file, resume_size=have, headers=headers, expected_size=size, displayed_filename=name
            )
        except (errors.HTTPError, OSError) as fault:
            if _status(fault) != 416 and (isinstance(fault, errors.HTTPError) or fault.errno is not None):
                if file.tell() == 0:
                    partial.unlink()
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


def push(folder: Path, repository: str, message: str, card: str | None = None) -> str:
    """Upload a folder, or one file, in one commit to a repository, which is made if it is not there.

    Args:
        card: the README.md to go with it, for a file that has none beside it.

    Returns:
        The commit's URL.

    Raises:
        Refusal: it is not allowed or not reachable; it says how to upload what stands in `folder` by hand.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, errors

    _refuse_bad_endpoint(constants.ENDPOINT)
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    root = folder.parent if folder.is_file() else folder
    with _quietly():
        try:
            api = HfApi(**_WHO)
            api.create_repo(repository, exist_ok=True)
            additions = [CommitOperationAdd(file.relative_to(root).as_posix(), str(file)) for file in files]
            if card is not None:
                additions.append(CommitOperationAdd("README.md", card.encode()))
            return str(api.create_commit(repository, additions, commit_message=message).commit_url)
        except (errors.HTTPError, OSError, ValueError, RuntimeError) as fault:
            told = _push_refusal(fault, repository)
            raise Refusal(
                f"{told.what}; {folder} stands complete",
                f"{told.way_on}; then run hf upload {repository} {folder}",
            ) from fault


def _push_refusal(fault: Exception, repository: str) -> Refusal:
    from huggingface_hub import errors

    # the client wraps what an upload fails with
    cause = fault.__cause__ if isinstance(fault, RuntimeError) and fault.__cause__ else fault
    if _status(cause) == 403:
        return Refusal(f"you may not write to {repository}", "use a token with write access to it")
    if isinstance(cause, errors.HTTPError) or getattr(cause, "errno", None) is not None:
        return _refusal(cause, repository)
    said = _without_tokens(cause)
    return Refusal(f"{repository} does not take the upload: {said}", "mend what it says")


def is_repository_name(name: str) -> bool:
    """Whether a text is a possible `org/name` on the Hub."""
    return _REPOSITORY.fullmatch(name) is not None


def refuse_bad_repository(name: str) -> None:
    """Refuse what cannot be the name of a repository to push to."""
    if not is_repository_name(name):
        raise UsageRefusal(f"{name} is not a name on the Hub", "give org/name, of letters, digits, - _ and .")


def refuse_no_token() -> None:
    """Refuse to go on to a push when it is known that the Hub would not take it."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise Refusal("HF_HUB_OFFLINE is set, so nothing can be pushed", "unset it, or leave --push-to out")
    try:
        token = get_token()
    except Exception as fault:  # each way of logging in fails in its own manner
        raise Refusal("the token for the Hub cannot be read", "run hf auth login") from fault
    if token is None:
        raise Refusal("you are not logged in to the Hub", "run hf auth login, or set HF_TOKEN")


@contextmanager
def _faults_told(reference: HubReference) -> Iterator[None]:
    """Turn the faults of the Hub, and of the way to it, into a Refusal."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HTTPError, OSError) as fault:
        raise _refusal(fault, reference.repository, reference) from fault


def _refusal(fault: Any, repository: str, reference: HubReference | None = None) -> Refusal:
    """The two lines for a fault of the Hub or of the way to it."""
    from huggingface_hub import constants, errors

    site = constants.ENDPOINT
    status = _status(fault)
    if isinstance(fault, errors.GatedRepoError):
        return Refusal(
            f"{repository} is gated on the Hub",
            f"accept its licence at {site}/{repository}, then run hf auth login",
        )
    if isinstance(fault, errors.RevisionNotFoundError) and reference is not None:
        return Refusal(
            f"{repository} has no revision {reference.revision or 'main'}",
            f"see its branches and tags at {site}/{repository}/tree/main",
        )
    if status == 401 and "Invalid credentials" in fault.response.headers.get("X-Error-Message", ""):
        return Refusal("the Hub does not accept the token", "run hf auth login, or mend HF_TOKEN")
    if isinstance(fault, errors.RepositoryNotFoundError) or status in (401, 404):
        return Refusal(
            f"{repository} is not on the Hub, or is private",
            "check the name, or the path if a local one was meant; for a private one run hf auth login",
        )
    if status is not None:
        return _refused_by_status(status, fault, repository)
    if isinstance(fault, errors.HTTPError):
        return Refusal(
            f"the Hub cannot be reached at {site} for {repository}",
            "check the network, then run again: what was downloaded is kept; or name a local folder",
        )
    if isinstance(fault, OSError) and fault.errno is not None:
        return Refusal(f"{repository}: {fault.strerror} ({fault.filename})", "mend that, then run again")
    return _no_hub(site)


def _refused_by_status(status: int, fault: Any, repository: str) -> Refusal:
    if status == 403:
        return Refusal(
            f"the Hub refuses access to {repository}", "use a token that may read it: hf auth login"
        )
    if status == 429:
        seconds = fault.response.headers.get("Retry-After", "")
        wait = f"wait {seconds} seconds" if seconds.isdigit() else "wait some minutes"
        return Refusal(
            f"the Hub takes no more requests for now, asked for {repository} (HTTP 429)",
            f"{wait}, then run again; logged in (hf auth login) you may ask more",
        )
    if status >= 500:
        return Refusal(
            f"the Hub fails with HTTP {status} for {repository}", "run again in some minutes: nothing is lost"
        )
    said = _without_tokens(fault.server_message or "no reason given")
    return Refusal(f"the Hub answers HTTP {status} for {repository}: {said}", "mend what it says")


def _without_tokens(said: object) -> str:
    """What the Hub or its client said, on one line, with no token that it may have echoed."""
    own = re.escape(os.environ.get("HF_TOKEN", "").strip() or "hf_")
    return re.sub(rf"{own}\w*|hf_\w+", "...", " ".join(str(said).split()))[:200]


def _no_hub(site: str) -> Refusal:
    return Refusal(
        f"{site} does not answer as the Hub does", "check HF_ENDPOINT, and the proxy or portal in between"
    )


def _refuse_bad_endpoint(site: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(site)
        if parts.scheme in ("http", "https") and parts.hostname:
            return
    raise UsageRefusal(
        f"HF_ENDPOINT is {site}", "set it to a URL such as https://huggingface.co, or unset it"
    )


def _status(fault: Any) -> int | None:
    return getattr(getattr(fault, "response", None), "status_code", None)


def _is_unreachable(fault: Exception) -> bool:
    status = _status(fault)
    return status is None or status >= 500


def _told(reference: HubReference) -> str:
    return reference.repository + (f"@{reference.revision}" if reference.revision else "")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without huggingface_hub's warnings, told in a refusal or a note, and without bars off a terminal."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    before = logging.get_verbosity()
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    if before == logging.WARNING:
        logging.set_verbosity(logging.ERROR)
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            enable_progress_bars()
