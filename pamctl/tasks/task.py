"""What a task is: a name, splits of examples, how answers are scored, and a training recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from pamctl.refusal import UsageRefusal

TRAIN, TEST = "train", "test"
"""The names of the splits that are trained on, and scored."""


LoadImages = Callable[[], Sequence[Image.Image]]


@dataclass(frozen=True, slots=True)
class Example:
    """One question on an image, or on the frames of a video, with every accepted answer.

    Attributes:
        id: unique within the split.
        prefix: the exact prompt, before the separator.
        answers: accepted answers; the first is the one trained on, unless the task samples them.
        load_images: returns the image, or the frames, when called, so that a split holds no pixels.
        type: kind of question, by which scores are broken down; None where the task has no kinds.
    """

    id: str
    prefix: str
    answers: tuple[str, ...]
    load_images: LoadImages
    type: str | None = None

    @property
    def suffix(self) -> str:
        """The first answer."""
        return self.answers[0]


class Text(NamedTuple):
    """What is trained on at one visit of an example: the exact prompt, and the answer."""

    prefix: str
    suffix: str


Visit = Callable[[Example, int, int], Text]
"""(example, seed, epoch) -> what is trained on: a function of these alone, so that nothing is remembered."""


def first_answer(example: Example, seed: int, epoch: int) -> Text:
    """The same at every visit: the prompt and the first answer."""
    return Text(example.prefix, example.suffix)


@dataclass(frozen=True)
class Recipe:
    """How a task is trained when no flag says otherwise (paper, Table 4; big_vision's transfer recipe).

    Attributes:
        steps: optimiser steps; when None, `epochs` passes over the training split.
        learning_rate: peak of a linear warm-up over `warmup` of the steps and a cosine to zero.
        weight_decay: decoupled, times the schedule and not the learning rate.
        clip: global norm of the gradient.
        align_every: optimiser steps between two realignments (PAM's s).
    """

    steps: int | None = None
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    clip: float = 1.0
    align_every: int = 100


@dataclass(frozen=True)
class Task:
    """A named set of splits with its metric and recipe.

    Attributes:
        metric: name of the answer metric in `pamctl.evaluation.answers`.
        visit: what is trained on at each visit of an example.
        frames: images an example.
        text_length: most tokens of prefix, separator and answer together.
        cuts: whether a longer text is cut, as big_vision does it, and not refused.
        max_new_tokens: most tokens decoded as an answer.
        notes: what to know before trusting a score of this task.
        path: where it lies; None for an embedded one.
    """

    name: str
    splits: Mapping[str, Sequence[Example]]
    description: str = ""
    metric: str = "exact"
    visit: Visit = first_answer
    frames: int = 1
    text_length: int = 128
    cuts: bool = False
    max_new_tokens: int = 16
    recipe: Recipe = field(default_factory=Recipe)
    notes: tuple[str, ...] = ()
    path: str | None = None

    def split(self, name: str) -> Sequence[Example]:
        """The examples of one split; refuses a name the task does not have, or a split without examples."""
        if name not in self.splits:
            raise UsageRefusal(
                f"task {self.name} has no split {name!r}", f"use one of: {', '.join(self.splits) or 'none'}"
            )
        if len(self.splits[name]) == 0:
            raise UsageRefusal(
                f"split {name!r} of task {self.name} is empty", "add at least one example to it"
            )
        return self.splits[name]
