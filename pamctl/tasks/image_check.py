"""Which images a task has, whether they can be decoded, and whether two splits share one with its prompt."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pamctl.refusal import Refusal
from pamctl.tasks.task import Example, LoadImages
from pamctl.tasks.visits import subsample

DECODED_AT_MOST = 4000
"""Of more images so many are drawn, unless every one is asked for."""


class Seen:
    """The images of examples as they come, and with which prompt each split has them."""

    def __init__(self) -> None:
        self._numbers: dict[LoadImages, int] = {}
        self._prompts: dict[str, dict[tuple[int, bytes], str]] = {}
        self._alike: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, split: str, example: Example) -> None:
        """Note an example."""
        number = self._numbers.setdefault(example.load_images, len(self._numbers))
        prompt = hashlib.blake2b(example.prefix.encode(), digest_size=8).digest()
        self._prompts.setdefault(split, {}).setdefault((number, prompt), example.id)

    def decoded(self, *, every: bool) -> tuple[list[Refusal], int]:
        """Decode the images, on all cores: what is wrong with some, and how many were decoded."""
        loads = list(self._numbers)
        names = [str(place) for place in range(len(loads))]
        places = subsample(names, len(names) if every else DECODED_AT_MOST)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            found = list(threads.map(_digest, (loads[place] for place in places)))
        first: dict[bytes, int] = {}
        for place, digest in zip(places, found, strict=True):
            if isinstance(digest, bytes):
                self._alike[place] = first.setdefault(digest, place)
        return [fault for fault in found if isinstance(fault, Refusal)], len(found)

    def leaks(self) -> Iterator[tuple[str, str, list[str]]]:
        """Two splits and the ids of the second whose image and prompt the first has too.

        Images are one where they decode to the same pixels, or are one file.
        """
        seen = {
            split: {
                (self._alike.get(number, number), prompt): identity
                for (number, prompt), identity in of.items()
            }
            for split, of in self._prompts.items()
        }
        for first, second in itertools.combinations(seen, 2):
            if shared := [identity for key, identity in seen[second].items() if key in seen[first]]:
                yield first, second, shared


def _digest(load: LoadImages) -> bytes | Refusal:
    digest = hashlib.sha256()
    try:
        for image in load():
            digest.update(repr(image.size).encode() + image.convert("RGB").tobytes())
    except Refusal as fault:
        return fault
    return digest.digest()
