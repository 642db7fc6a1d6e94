"""What is drawn anew at each visit of an example: an answer, the order of options, where a clip starts.

Every draw is a function of (seed, id, epoch) alone: no order of visits, number of processes or resumed run
changes it, and nothing has to be remembered.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from pamctl.tasks.task import Example, Text


@runtime_checkable
class Clip(Protocol):
    """What loads the frames of a video from any start, and from its own when it is called."""

    def __call__(self) -> Sequence[Image.Image]:
        """The frames from the fixed start that scores are taken with."""

    def at(self, start: float) -> Sequence[Image.Image]:
        """The frames from a start in [0, 1): 0 is the earliest, 1 would be just behind the latest."""


def sampled_answer(example: Example, seed: int, epoch: int) -> Text:
    """Another of the answers that are not blank at each epoch: none comes again before all have come."""
    answers = [answer for answer in example.answers if answer.strip()]
    turn, place = divmod(epoch, len(answers))
    return Text(example.prefix, answers[shuffled(len(answers), seed, example.id, turn)[place]])


def shuffled(count: int, seed: int, identity: str, epoch: int) -> list[int]:
    """A permutation of range(count)."""
    return sorted(range(count), key=lambda place: _digest(seed, identity, epoch, place))


def images_at(example: Example, seed: int, epoch: int) -> Sequence[Image.Image]:
    """What is seen at a visit: the image, or the frames of a clip from a start drawn anew."""
    load = example.load_images
    if not isinstance(load, Clip):
        return load()
    return load.at(int.from_bytes(_digest(seed, example.id, epoch, "start")[:6], "big") / 2**48)


def subsample(ids: Sequence[str], count: int, seed: int = 0) -> list[int]:
    """The places of `count` of the ids, in their order; fewer are a part of more.

    An id's rank depends on (seed, id) alone, so that what else is in the file changes nothing.
    """
    if count >= len(ids):
        return list(range(len(ids)))
    ranked = sorted(range(len(ids)), key=lambda place: _digest(seed, ids[place], "subsample"))
    return sorted(ranked[:count])


def _digest(*key: object) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
