"""One code path from one CPU to a pod: the only package that knows about several processes."""

from typing import TYPE_CHECKING, Any

from pamctl.distributed.joining import Mode, join
from pamctl.distributed.processes import agree, barrier, broadcast_text, decided_by_main, gathered, is_main

if TYPE_CHECKING:
    from pamctl.distributed.devices import Devices

__all__ = [
    "Devices",
    "Mode",
    "agree",
    "barrier",
    "broadcast_text",
    "decided_by_main",
    "gathered",
    "is_main",
    "join",
]


def __getattr__(name: str) -> Any:
    # Late, because importing jax takes a second that `pamctl --help` does not have.
    if name == "Devices":
        from pamctl.distributed.devices import Devices

        return Devices
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
