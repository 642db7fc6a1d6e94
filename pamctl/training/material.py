"""What a run trains on: the recipe, the examples of one or several tasks and of replay, and their order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pamctl.models.base import Base
from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Task
from pamctl.training.batches import EncodedSplit, encode_split, joined, train_split
from pamctl.training.configuration import Settings, resolve_recipe
from pamctl.training.epochs import Visits, batch_visits
from pamctl.training.mixture import mixed_visits, visits_of
from pamctl.training.replay import Replay
from pamctl.training.replay_buffer import ReplayBuffer


@dataclass(frozen=True)
class Material:
    """Examples and how they are gone through.

    Attributes:
        recipe: of the optimiser, by the names of `Configuration`.
        order: step (1-based) -> the visits of its batch, to examples of `split`.
    """

    recipe: Mapping[str, Any]
    split: EncodedSplit
    order: Callable[[int], Visits]


def encoded_splits(
    tasks: Sequence[Task], base: Base, encode: Callable[[Task], EncodedSplit] | None, *, vision: bool
) -> list[EncodedSplit]:
    """Return the training splits, all of features or all of pixels.

    Args:
        encode: gives a split as `encode_split` does with the vision tower frozen.
        vision: whether the adapter changes what the tower sees.
    """
    encoded = [_encoded(task, base, encode, vision=vision) for task in tasks]
    if len(tasks) > 1 and not all(split.features_given for split in encoded):
        encoded = [_encoded(task, base, encode, vision=True) for task in tasks]
    return encoded


def mixed(
    tasks: Sequence[Task], encoded: Sequence[EncodedSplit], settings: Settings, seed: int, base: Base
) -> Material:
    """Return what is trained on for one task, or for several at once.

    Raises:
        UsageRefusal: the tasks' recipes differ where a run can have but one.
    """
    recipes = [
        resolve_recipe(settings, task.recipe, len(split)) for task, split in zip(tasks, encoded, strict=True)
    ]
    recipe = recipes[0]
    smoothing = [of["label_smoothing"] for of in recipes]
    split = joined(
        [of.smoothed(each) for of, each in zip(encoded, smoothing, strict=True)], base.config.pad_token_id
    )
    if len(tasks) == 1:
        return Material(recipe, split, partial(batch_visits, len(split), recipe["batch_size"], seed))
    _refuse_differing(tasks, recipes)
    alone = [of["steps"] * of["batch_size"] for of in recipes]
    if settings.get("steps") is not None:
        alone = [len(of) for of in encoded]
    visits = visits_of(alone, settings.get("mixing", "proportional"))
    steps = settings.get("steps") or -(-sum(visits) // recipe["batch_size"])
    same = smoothing[0] if len(set(smoothing)) == 1 else None
    sizes = tuple(len(of) for of in encoded)
    order = partial(mixed_visits, sizes, visits, recipe["batch_size"], seed)
    return Material({**recipe, "steps": steps, "label_smoothing": same}, split, order)


def with_replay(
    new: Material,
    buffer: ReplayBuffer,
    replay: Replay,
    seed: int,
    base: Base,
    opened: Callable[[str], Task],
) -> Material:
    """Return the new examples with the kept ones behind them, in batches that have rows of both.

    Args:
        opened: gives the task of a name or path.

    Raises:
        Refusal: a kept example is gone, or is not what was kept.
    """
    longest, frames = (max(getattr(of, name) for of in buffer.kept) for name in ("text_length", "frames"))
    pixels = not new.split.features_given
    kept = encode_split(
        base, buffer.examples(opened), longest, vision_adapted=pixels, frames=frames, cuts=True
    )
    kept = replace(kept, smoothing=np.array([of.label_smoothing for of in buffer.kept], np.float32))
    fresh, size, batch = len(new.split), len(kept), replay.batch or new.recipe["batch_size"]

    def both(step: int) -> Visits:
        return new.order(step).followed_by(batch_visits(size, batch, seed, step), fresh)

    return Material(new.recipe, joined([new.split, kept], base.config.pad_token_id), both)


def _encoded(
    task: Task, base: Base, encode: Callable[[Task], EncodedSplit] | None, *, vision: bool
) -> EncodedSplit:
    if not vision and encode is not None:
        return encode(task)
    return train_split(base, task, vision_adapted=vision)


def _refuse_differing(tasks: Sequence[Task], recipes: Sequence[Mapping[str, Any]]) -> None:
    recipe = recipes[0]
    for name in recipe.keys() - {"steps", "label_smoothing"}:
        values = {task.name: of[name] for task, of in zip(tasks, recipes, strict=True)}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{value} for {task}" for task, value in values.items())
            option = {"learning_rate": "--lr"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageRefusal(
                f"the tasks have several values of {option}: {told}", f"give one with {option}"
            )
