"""Which examples of the tasks before are kept to be trained on again (experience replay), and how many."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pamctl.refusal import UsageRefusal

KeptImages = Literal["reference", "copy"]
BUFFER = 1000


@dataclass(frozen=True)
class Replay:
    """How a run replays.

    Attributes:
        buffer: examples kept in all, as many of each task as of the others, up to one.
        batch: replayed examples a step, beside those of the new task; None for as many as those.
        images: kept by reference to the task they are from, or as copies in the buffer's folder.
    """

    buffer: int = BUFFER
    batch: int | None = None
    images: KeptImages = "reference"


def resolved_replay(specification: str | None, *, replays: bool = False) -> Replay | None:
    """Return how a run replays, None where it does not; a buffer of 0 is none.

    Args:
        specification: `off`, `on`, or `buffer=N,batch=N,images=reference|copy`, any of them.
        replays: what the method does where nothing is specified.
    """
    if specification is None:
        return Replay() if replays else None
    if specification == "off":
        return None
    replay = Replay()
    for pair in filter(None, specification.removeprefix("on").lstrip(",").split(",")):
        match pair.partition("="):
            case "buffer", _, count if count.isdecimal():
                replay = replace(replay, buffer=int(count))
            case "batch", _, count if count.isdecimal() and int(count):
                replay = replace(replay, batch=int(count))
            case "images", _, ("reference" | "copy") as images:
                replay = replace(replay, images=images)
            case _:
                raise UsageRefusal(
                    f"--replay {specification}: {pair!r} says nothing",
                    "give off, on, or buffer=1000,batch=32,images=reference (or copy), any of them",
                )
    return replay if replay.buffer else None


def shares_of(buffer: int, tasks: int) -> list[int]:
    """Return how many examples of each task are kept, in their order: the first have what is over."""
    return [buffer // tasks + (number < buffer % tasks) for number in range(tasks)]


def kept_of(ids: Sequence[str], task: str, count: int, seed: int) -> list[int]:
    """Return the places of the `count` ids that are kept, in their order.

    An id's rank depends on (seed, task, id) alone, so that fewer are a part of more, and an example counts
    once however often it was seen.
    """

    def rank(place: int) -> bytes:
        return hashlib.sha256(repr((seed, task, ids[place])).encode()).digest()

    return sorted(sorted(range(len(ids)), key=rank)[:count])


def by_task(tasks: Iterable[str]) -> dict[str, list[int]]:
    """Return the places of each task's examples, tasks in the order in which they first come."""
    places: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        places.setdefault(task, []).append(place)
    return places
