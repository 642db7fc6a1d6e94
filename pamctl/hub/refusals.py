"""Which fault of the Hub, of its client or of the way to it is told by which two lines."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from pamctl.hub.references import HubReference
from pamctl.refusal import Refusal, UsageRefusal


@contextmanager
def faults_told(reference: HubReference) -> Iterator[None]:
    """Turn the faults met while a reference is fetched into a Refusal."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HTTPError, OSError) as fault:
        raise hub_refusal(fault, reference.repository, reference) from fault


def hub_refusal(fault: Any, repository: str, reference: HubReference | None = None) -> Refusal:
    """The two lines for a fault of the Hub or of the way to it.

    Args:
        reference: that was asked for, if one was.
    """
    from huggingface_hub import constants, errors

    site = constants.ENDPOINT
    status = status_of(fault)
    if isinstance(fault, errors.GatedRepoError):
        return Refusal(
            f"{repository} is gated on the Hub",
            f"accept its licence at {site}/{repository}, then run hf auth login",
        )
    if isinstance(fault, errors.RevisionNotFoundError) and reference is not None:
        slash = "write %2F for a / that belongs to the revision, or " if reference.path else ""
        return Refusal(
            f"{repository} has no revision {reference.revision or 'main'}",
            f"{slash}see its branches and tags at {site}/{repository}/tree/main",
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
    return no_hub()


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
    said = without_tokens(fault.server_message or "no reason given")
    return Refusal(f"the Hub answers HTTP {status} for {repository}: {said}", "mend what it says")


def no_hub() -> Refusal:
    """The two lines for an answer that no Hub gives."""
    from huggingface_hub import constants

    return Refusal(
        f"{constants.ENDPOINT} does not answer as the Hub does",
        "check HF_ENDPOINT, and the proxy or portal in between",
    )


def refuse_bad_endpoint() -> None:
    """Refuse an HF_ENDPOINT that is no URL, before the client fails on it in its own manner."""
    from huggingface_hub import constants

    with suppress(ValueError):
        parts = urlsplit(constants.ENDPOINT)
        if parts.scheme in ("http", "https") and parts.hostname:
            return
    raise UsageRefusal(
        f"HF_ENDPOINT is {constants.ENDPOINT}", "set it to a URL such as https://huggingface.co, or unset it"
    )


def without_tokens(said: object) -> str:
    """What the Hub or its client said, on one line, with no token that it may have echoed."""
    own = re.escape(os.environ.get("HF_TOKEN", "").strip() or "hf_")
    return re.sub(rf"{own}\w*|hf_\w+", "...", " ".join(str(said).split()))[:200]


def status_of(fault: object) -> int | None:
    """The HTTP status that a fault came with, if any."""
    return getattr(getattr(fault, "response", None), "status_code", None)


def is_unreachable(fault: Exception) -> bool:
    """Whether a fault says nothing of what was asked for, so that the cache may answer in the Hub's place."""
    status = status_of(fault)
    return status is None or status >= 500
