"""How a folder or a file comes onto the Hub, and what is refused before any work is done for it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pamctl.hub.client import WHO, quietly
from pamctl.hub.fetching import listing
from pamctl.hub.references import HubReference, is_repository_name
from pamctl.hub.refusals import hub_refusal, refuse_bad_endpoint, status_of, without_tokens
from pamctl.refusal import Refusal, UsageRefusal

Replaced = Callable[[Sequence[str], Sequence[str]], Sequence[str]]


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


def push(folder: Path, repository: str, message: str, replaced: Replaced, card: str | None = None) -> str:
    """Upload a folder, or one file, in one commit to a repository, which is made if it is not there.

    Args:
        replaced: of the names that the repository has and those that come, chooses which to delete.
        card: the README.md to go with it, for a file that has none beside it.

    Returns:
        The commit's URL.

    Raises:
        Refusal: `replaced` refuses, or it is not allowed or not reachable; it says how to upload what stands
            in `folder` by hand.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

    refuse_bad_endpoint()
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    root = folder.parent if folder.is_file() else folder
    new: dict[str, str | bytes] = {file.relative_to(root).as_posix(): str(file) for file in files}
    if card is not None:
        new["README.md"] = card.encode()
    with quietly():
        try:
            api = HfApi(**WHO)
            api.create_repo(repository, exist_ok=True)
            _, there = listing(HubReference(repository, None, ""))
            additions = [CommitOperationAdd(name, content) for name, content in new.items()]
            deletions = [CommitOperationDelete(name) for name in replaced(there, list(new))]
            commit = api.create_commit(repository, [*additions, *deletions], commit_message=message)
            return str(commit.commit_url)
        except (Refusal, errors.HTTPError, OSError, ValueError, RuntimeError) as fault:
            told = fault if isinstance(fault, Refusal) else _push_refusal(fault, repository)
            raise Refusal(
                f"{told.what}; {folder} stands complete",
                f"{told.way_on}; then run hf upload {repository} {folder}",
            ) from fault


def _push_refusal(fault: Exception, repository: str) -> Refusal:
    from huggingface_hub import errors

    # the client wraps what an upload fails with
    cause = fault.__cause__ if isinstance(fault, RuntimeError) and fault.__cause__ else fault
    if status_of(cause) == 403:
        return Refusal(f"you may not write to {repository}", "use a token with write access to it")
    if isinstance(cause, errors.HTTPError) or getattr(cause, "errno", None) is not None:
        return hub_refusal(cause, repository)
    return Refusal(f"{repository} does not take the upload: {without_tokens(cause)}", "mend what it says")
