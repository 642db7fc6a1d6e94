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
from pamctl.tasks.task import TRAIN, Example, LoadImages, Task
from pamctl.training.replay import Replay, by_task, kept_of, shares_of

FOLDER, FILE_NAME, IMAGES = "replay", "buffer.jsonl", "images"
SCHEMA = "pamctl.replay/1"
FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("task", "id", "prefix", "answer", "pixels"), (str,)),
    **dict.fromkeys(("text_length", "frames"), (int,)),
    "label_smoothing": (int, float),
    **dict.fromkeys(("path", "image"), (str, type(None))),
}


@dataclass(frozen=True)
class Kept:
    """One example of a task before.

    Attributes:
        prefix, answer: the exact prompt, and the answer that was trained on.
        pixels: SHA-256 of the size and RGB values of the picture, or of each frame.
        text_length, label_smoothing, frames: the task's.
        path: of the task; None for an embedded one, which is found by name. On disk relative to the buffer.
        image: of a copy, on disk relative to the buffer, a folder where there are several frames; None for
            one that the task still has.
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
    frames: int = 1


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
            example, answers=(of.answer,), load_images=partial(self._checked, of, example.load_images)
        )

    def _checked(self, of: Kept, load: LoadImages) -> Sequence[Image.Image]:
        way_on = "put the image back, or train with --replay images=copy from the first task on"
        try:
            images = load()
        except OSError as fault:
            raise Refusal(
                f"{self.file}: the image of example {of.id} of {of.task} cannot be read: {fault}", way_on
            ) from fault
        if _digest(images) != of.pixels:
            raise Refusal(
                f"{self.file}: the image of example {of.id} of {of.task} is not the one that was kept", way_on
            )
        return images


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
        kept.append(
            Kept(
                task=task.name,
                id=of.id,
                prefix=of.prefix,
                answer=of.suffix,
                pixels=_digest(of.load_images()),
                text_length=task.text_length,
                label_smoothing=smoothing,
                path=task.path and os.path.abspath(task.path),
                frames=task.frames,
            )
        )
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
        images = [
            f"{IMAGES}/{number:05d}" + (".png" if of.frames == 1 else "")
            for number, of in enumerate(buffer.kept)
        ]
        for example, name in zip(buffer.examples(opened), images, strict=True):
            _write(example.load_images(), folder / str(name))
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
    record.setdefault("frames", 1)
    for name, kinds in FIELD_TYPES.items():
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{name} is {value!r}")
    kept = Kept(**record)
    if min(kept.text_length, kept.frames) < 1 or not 0 <= kept.label_smoothing < 1:
        raise ValueError(
            f"text_length is {kept.text_length}, frames {kept.frames}, label_smoothing {kept.label_smoothing}"
        )
    placed = {
        name: os.path.normpath(folder / value)
        for name in ("path", "image")
        if (value := getattr(kept, name)) is not None
    }
    return replace(kept, **placed)


def _by_id(task: Task) -> dict[str, Example]:
    return {example.id: example for example in task.split(TRAIN)}


def _read(place: Path) -> list[Image.Image]:
    """The copy of a picture, or of the frames in a folder."""
    found = []
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        with Image.open(file) as image:
            found.append(image.convert("RGB"))
    return found


def _write(images: Sequence[Image.Image], place: Path) -> None:
    if place.suffix:
        images[0].convert("RGB").save(place)
        return
    place.mkdir()
    for number, image in enumerate(images):
        image.convert("RGB").save(place / f"{number:03d}.png")


def _digest(images: Sequence[Image.Image]) -> str:
    digest = hashlib.sha256()
    for image in images:
        pixels = np.asarray(image.convert("RGB"))
        digest.update(repr(pixels.shape).encode() + pixels.tobytes())
    return digest.hexdigest()
