"""What a text means as a place on the Hub, of which nothing is asked for it."""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from pamctl.refusal import UsageRefusal

_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.))(?!.*\.git$){_NAME}/{_NAME}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = r"(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/]*)"
_REFERENCE = re.compile(rf"(?P<repository>[^/@]+/[^/@]+)(?:@{_REVISION})?(?:/(?P<path>.*))?")
_PAGE = re.compile(
    rf"(?P<repository>[^/]+/[^/]+)(?:/(?:resolve|blob|tree|raw)/{_REVISION}(?:/(?P<path>.*))?)?"
)


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

    def __str__(self) -> str:
        """The repository, and the revision where one is named."""
        return self.repository + (f"@{self.revision}" if self.revision else "")


def hub_reference(reference: str) -> HubReference | None:
    """What a text means as a reference to the Hub, or None if it cannot be one; nothing is asked of the Hub.

    It is `hf://org/name[@revision][/folder or file]`, the same without `hf://`, or the URL of a file or
    folder at huggingface.co, hf.co or HF_ENDPOINT. In a revision a `/` is written `%2F`, as in URLs; only
    `refs/pr/N` and `refs/convert/NAME` may have it plain, as everywhere on the Hub.

    Raises:
        UsageRefusal: `hf://` or a URL of the Hub, and then something that is no place in a model repository.
    """
    page = None
    if reference.startswith("hf://") or "://" not in reference:
        match = _REFERENCE.fullmatch(reference.removeprefix("hf://").rstrip("/"))
    elif (page := _page(reference)) is not None:
        match = _PAGE.fullmatch(page)
    else:
        return None
    if match is None:
        fault: str | None = "that is no place in a model repository"
    else:
        revision, path = match["revision"], match["path"] or ""
        found = HubReference(
            match["repository"],
            None if revision is None else unquote(revision),
            path if page is None else unquote(path),
        )
        fault = _fault(found)
        if fault is None:
            return found
    if "://" not in reference:
        return None
    raise UsageRefusal(
        f"{reference}: {fault}",
        "write hf://org/name, hf://org/name@revision or hf://org/name@revision/folder; "
        "a / in a revision is %2F",
    )


def _page(url: str) -> str | None:
    """What a URL says after the Hub's address, or None where it has not that."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    for site in (endpoint, "https://huggingface.co", "https://hf.co"):
        if site and url.startswith(f"{site}/"):
            return re.split("[?#]", url.removeprefix(f"{site}/"))[0].rstrip("/")
    return None


def _fault(reference: HubReference) -> str | None:
    """What is wrong with the parts of a reference."""
    kind = reference.repository.split("/")[0]
    if kind in ("datasets", "spaces", "kernels", "buckets", "models"):
        return f"it names one of the {kind}, where org/name is wanted"
    if not is_repository_name(reference.repository):
        return f"{reference.repository} is not a repository's name"
    revision = reference.revision
    if revision is not None and (not is_inside(revision) or re.search(r"[\s~^:?*\[]|^-", revision)):
        return f"{revision!r} is not a revision"
    if reference.path and not is_inside(reference.path):
        return f"{reference.path!r} is not a path inside a repository"
    return None


def is_repository_name(name: str) -> bool:
    """Whether a text is a possible `org/name` on the Hub."""
    return _REPOSITORY.fullmatch(name) is not None


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's full hash, which always stands for the same files."""
    return _COMMIT.fullmatch(revision) is not None


def is_inside(path: str) -> bool:
    """Whether a path leads down only, and reads the same everywhere."""
    return "\\" not in path and path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
