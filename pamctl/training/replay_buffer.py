"""The examples kept for replay, on disk beside an adapter: references, answers and hashes as JSON Lines."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pamctl.refusal import Refusal
from pamctl.tasks.task import TRAIN, Example, Task
from pamctl.training.replay import Replay, by_task, kept_of, shares_of

FOLDER, FILE_NAME, IMAGES = "replay", "buffer.jsonl", "images"
SCHEMA = "pamctl.replay/1"
FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("task", "id", "prefix", "answer", "pixels"), (str,)),
    "text_length": (int,),
    "label_smoothing": (int, float),
    **dict.fromkeys(("path", "image"), (str, type(None))),
}


@dataclass(frozen=True)
class Kept:
    """One example of a task before.

    Attributes:
        prefix, answer: the exact prompt, and the answer that was trained on.
        pixels: SHA-256 of the picture's size and RGB values.
        text_length, label_smoothing: the task's.
        path: of the task; None for an embedded one, which is found by name. On disk relative to the buffer.
        image: of a copy, on disk relative to the buffer; None for one that the task still has.
    """

    task: str
    id: str
    prefix: str
    answer: str
    pixels: str
    text_length: int
    label_smoothing: float
    path: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class ReplayBuffer:
    """The examples of all tasks before, and the file that told of them."""

    file: Path
    kept: tuple[Kept, ...]

    def examples(self, opened: Callable[[str], Task]) -> list[Example]:
        """Return the examples, found again in their tasks or among the copies; images are checked when read.

        Args:
            opened: gives the task of a name or path.

        Raises:
            Refusal: an example is gone, or is not what was kept.
        """
        tasks = cache(lambda reference: _by_id(opened(reference)))
        return [
            self._copied(of) if of.image else self._found(of, tasks(of.path or of.task)) for of in self.kept
        ]

    def _copied(self, of: Kept) -> Example:
        load = partial(self._checked, of, partial(_read, Path(str(of.image))))
        return Example(of.id, of.prefix, (of.answer,), load)

    def _found(self, of: Kept, examples: Mapping[str, Example]) -> Example:
        example = examples.get(of.id)
        if example is None or example.prefix != of.prefix or of.answer not in example.answers:
            fault = "is gone from" if example is None else "has another question or answer now in"
            raise Refusal(
                f"{self.file}: example {of.id} {fault} {of.path or of.task}",
                "put the task's data back, or train with --replay images=copy from the first task on",
            )
        return replace(
            example, answers=(of.answer,), load_image=partial(self._checked, of, example.load_image)
        )

    def _checked(self, of: Kept, load: Callable[[], Image.Image]) -> Image.Image:
        way_on = "put the image back, or train with --replay images=copy from the first task on"
        try:
            image = load()
        except OSError as fault:
            raise Refusal(
                f"{self.file}: the image of example {of.id} of {of.task} cannot be read: {fault}", way_on
            ) from fault
        if _digest(image) != of.pixels:
            raise Refusal(
                f"{self.file}: the image of example {of.id} of {of.task} is not the one that was kept", way_on
            )
        return image


def read_buffer(folder: Path) -> ReplayBuffer | None:
    """Return the buffer in a folder that `train-task` wrote, None where there is none.

    Raises:
        Refusal: a line is at fault.
    """
    file = folder / FOLDER / FILE_NAME
    if not file.is_file():
        return None
    kept = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            kept.append(_parsed(json.loads(line), file.parent))
        except (ValueError, TypeError, RecursionError) as fault:
            raise Refusal(
                f"{file} line {number}: {fault}", "take the folder once more from where it was written"
            ) from fault
    return ReplayBuffer(file, tuple(kept))


def buffer_after(
    before: ReplayBuffer | None, task: Task, replay: Replay, seed: int, smoothing: float
) -> ReplayBuffer:
    """Return the buffer once a task is learned: an equal share of it, the shares before made smaller.

    Args:
        smoothing: the label smoothing that the task was trained with.
    """
    earlier = [of for of in (before.kept if before else ()) if of.task != task.name]
    places = by_task(of.task for of in earlier)
    *shares, share = shares_of(replay.buffer, len(places) + 1)
    kept: list[Kept] = []
    for (name, of_task), count in zip(places.items(), shares, strict=True):
        ids = [earlier[place].id for place in of_task]
        kept += [earlier[of_task[place]] for place in kept_of(ids, name, count, seed)]
    examples = task.split(TRAIN)
    for place in kept_of([example.id for example in examples], task.name, share, seed):
        of = examples[place]
        pixels = _digest(of.load_image())
        path = task.path and os.path.abspath(task.path)
        kept.append(Kept(task.name, of.id, of.prefix, of.suffix, pixels, task.text_length, smoothing, path))
    return ReplayBuffer(before.file if before else Path(FILE_NAME), tuple(kept))


def write_buffer(
    buffer: ReplayBuffer, draft: Path, out: Path, replay: Replay, opened: Callable[[str], Task]
) -> None:
    """Write a buffer into the draft of an output, with copies of the images if they are asked for.

    Args:
        out: what the draft will become: paths are made relative to it.
        opened: gives the task of a name or path.
    """
    folder, target = draft / FOLDER, out.absolute() / FOLDER
    folder.mkdir()
    images: Sequence[str | None]
    if replay.images == "copy":
        (folder / IMAGES).mkdir()
        images = [f"{IMAGES}/{number:05d}.png" for number in range(len(buffer.kept))]
        for example, name in zip(buffer.examples(opened), images, strict=True):
            example.load_image().convert("RGB").save(folder / str(name))
    else:
        images = [of.image and os.path.relpath(of.image, target) for of in buffer.kept]
    with (folder / FILE_NAME).open("w", encoding="utf-8") as file:
        for of, image in zip(buffer.kept, images, strict=True):
            record = replace(of, path=of.path and os.path.relpath(of.path, target), image=image)
            file.write(json.dumps({"schema": SCHEMA, **asdict(record)}, ensure_ascii=False) + "\n")


def _parsed(record: Any, folder: Path) -> Kept:
    """A record with its paths made absolute; ValueError and TypeError name the field that is wrong."""
    if not isinstance(record, dict) or record.pop("schema", None) != SCHEMA:
        raise ValueError(f"no record of schema {SCHEMA}")
    for name, kinds in FIELD_TYPES.items():
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{name} is {value!r}")
    kept = Kept(**record)
    if kept.text_length < 1 or not 0 <= kept.label_smoothing < 1:
        raise ValueError(f"text_length is {kept.text_length}, label_smoothing {kept.label_smoothing}")
    placed = {
        name: os.path.normpath(folder / value)
        for name in ("path", "image")
        if (value := getattr(kept, name)) is not None
    }
    return replace(kept, **placed)


def _by_id(task: Task) -> dict[str, Example]:
    return {example.id: example for example in task.split(TRAIN)}


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _digest(image: Image.Image) -> str:
    pixels = np.asarray(image.convert("RGB"))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
