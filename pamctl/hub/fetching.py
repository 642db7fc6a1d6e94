"""Which commit of a repository a reference means, and which of its files come into the Hub's cache."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pamctl.hub.cache import RepositoryCache
from pamctl.hub.client import WHO, quietly
from pamctl.hub.downloading import download
from pamctl.hub.references import HubReference, is_commit, is_inside
from pamctl.hub.refusals import faults_told, is_unreachable, no_hub, refuse_bad_endpoint
from pamctl.refusal import Refusal
from pamctl.whole_output import disk_faults_named

Wanted = Callable[[Sequence[str]], Sequence[str]]


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
    notes: tuple[str, ...] = ()


def fetch(reference: HubReference, wanted: Wanted) -> Snapshot:
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

    cache = RepositoryCache.of(reference.repository)
    if constants.HF_HUB_OFFLINE:
        cached = _cached(reference, wanted, cache)
        if cached is None:
            raise Refusal(
                f"{reference} is not in the Hub's cache, and HF_HUB_OFFLINE is set",
                "unset HF_HUB_OFFLINE to fetch it, or name a local folder",
            )
        return cached
    with quietly(), faults_told(reference):
        try:
            commit, files = listing(reference)
        except errors.HTTPError as fault:
            cached = _cached(reference, wanted, cache) if is_unreachable(fault) else None
            if cached is None:
                raise
            note = f"the Hub cannot be reached: {reference.repository} is the cache's, at {cached.commit}"
            return replace(cached, notes=(note,))
        folder, names = _names_at(reference.path, files)
        if not names:
            raise _absent(reference, reference.path or "files", files)
        for name in wanted(names):
            if name not in names:
                raise _absent(reference, f"{folder}{name}", files)
            _fetch_file(reference.repository, commit, f"{folder}{name}", cache)
    cache.remember(reference.revision, commit)
    return Snapshot(reference.repository, commit, cache.snapshot(commit) / folder, tuple(names))


def listing(reference: HubReference) -> tuple[str, list[str]]:
    """The commit a revision stands for and the names of all its files, in one request."""
    from huggingface_hub import HfApi, constants

    refuse_bad_endpoint()
    try:
        information = HfApi(**WHO).model_info(
            reference.repository, revision=reference.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        commit, files = information.sha, information.siblings
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise no_hub() from fault
    if commit is None or files is None or not is_commit(commit):
        raise no_hub()
    return commit, [file.rfilename for file in files if is_inside(file.rfilename)]


def _names_at(path: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that a path means, with its / or empty, and the names below it."""
    parent = path.rpartition("/")[0] if path in files else path
    folder = f"{parent}/" if parent else ""
    return folder, sorted(name.removeprefix(folder) for name in files if name.startswith(folder))


def _absent(reference: HubReference, path: str, files: Sequence[str]) -> Refusal:
    there = sorted({name.split("/")[0] for name in files})
    listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    return Refusal(
        f"{reference} holds no {path}", f"it has {listed}" if there else "check the name: it is empty"
    )


def _cached(reference: HubReference, wanted: Wanted, cache: RepositoryCache) -> Snapshot | None:
    """What the cache holds of a reference, or None where nothing that is wanted is there."""
    commit = cache.commit_of(reference.revision)
    folder, names = _names_at(reference.path, cache.files(commit) if commit else ())
    if commit is None or not names:
        return None
    try:
        chosen = wanted(names)
    except Refusal as refusal:
        raise Refusal(f"{refusal.what}, of which the cache has only a part", refusal.way_on) from refusal
    if not chosen:
        return None
    return Snapshot(reference.repository, commit, cache.snapshot(commit) / folder, tuple(names))


def _fetch_file(repository: str, commit: str, name: str, cache: RepositoryCache) -> None:
    """Have one file of a commit in the cache."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    place = cache.snapshot(commit) / name
    if place.is_file():
        return
    with disk_faults_named(place):
        url = hf_hub_url(repository, name, revision=commit)
        metadata = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, **WHO)
        if metadata.etag is None or not re.fullmatch(r"[\w-]+", metadata.etag):
            raise no_hub()
        blob = cache.blob(metadata.etag)
        if not blob.is_file():
            download(url, blob, metadata.size, f"{repository}/{name}")
        cache.link(blob, commit, name)
