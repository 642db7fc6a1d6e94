"""How the processes of a run wait for each other and come to know the same."""

# Each of these is a collective on the devices, so every process has to call it, in the same order, and
# it ends no sooner than the work that the devices were given before. With one process all are free.

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.refusal import Refusal


def is_main() -> bool:
    """Whether this is process 0, the one that prints and writes."""
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process is here; processes that wait at barriers of other names fail."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(flag: bool) -> bool:
    """Return whether the flag is true in any process: the same answer in all."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def broadcast_text(text: str) -> str:
    """Return the text of process 0; those of the others are let go."""
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return text
    # Arrays of a broadcast have the same shape everywhere, so the length goes first.
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    sent = multihost_utils.broadcast_one_to_all(data if is_main() else np.zeros(length, np.uint8))
    return np.asarray(sent).tobytes().decode()


def gathered(array: Any) -> NDArray[Any]:
    """Return the whole of an array that lies over the devices of all processes, in each of them."""
    from jax.experimental import multihost_utils

    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def decided_by_main(decide: Callable[[], Any]) -> Any:
    """Return what process 0 decides, as JSON carries it, in every process.

    Raises:
        Refusal: process 0 refused; all refuse with the same words, so that none waits for another.
    """
    told: dict[str, Any] = {}
    if is_main():
        try:
            told = {"decided": decide()}
        except Refusal as fault:
            told = {"refused": (fault.what, fault.way_on)}
    told = json.loads(broadcast_text(json.dumps(told)))
    if "refused" in told:
        raise Refusal(*told["refused"])
    return told["decided"]
