"""What pamctl asks of the Hub, through huggingface_hub, which no other package knows."""

# huggingface_hub is imported inside functions only: it takes its time, and reads HF_HOME, HF_TOKEN,
# HF_HUB_OFFLINE and HF_ENDPOINT when it is imported.

from pamctl.hub.fetching import Snapshot, fetch
from pamctl.hub.pushing import push, refuse_bad_repository, refuse_no_token
from pamctl.hub.references import HubReference, hub_reference, is_repository_name

__all__ = [
    "HubReference",
    "Snapshot",
    "fetch",
    "hub_reference",
    "is_repository_name",
    "push",
    "refuse_bad_repository",
    "refuse_no_token",
]
