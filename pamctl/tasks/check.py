"""What is wrong with a task before hours are spent on it: faults, broken images, leaks between splits."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pamctl.refusal import Refusal
from pamctl.tasks import open_task
from pamctl.tasks.jsonl import Row, read_rows, task_files
from pamctl.tasks.task import Example

NAMED_AT_MOST = 3


@dataclass
class TaskCheck:
    """What a check found.

    Attributes:
        splits: number of usable examples of each split.
        errors: what makes training fail or a score worthless.
        warnings: what to know before trusting a score.
    """

    name: str
    splits: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_task(reference: str, on_examples: Callable[[int], None] = lambda _: None) -> TaskCheck:
    """Read every example of a task and decode every image once.

    Errors are lines at fault, broken images, empty answers, an id that a split uses twice, and an image with
    its prompt in two splits. An id written in a file that two splits share is a warning.

    Args:
        on_examples: told how many examples have been read.

    Raises:
        UsageRefusal: no task has this name.
    """
    path = Path(reference)
    if path.exists() and (path.is_dir() or path.suffix == ".jsonl"):
        found, splits = _read_jsonl(path)
    else:
        task = open_task(reference)
        found, splits = TaskCheck(task.name), dict(task.splits)
    hashes: dict[object, str | None] = {}
    keys: dict[str, dict[tuple[str, str], Example]] = {}
    done = itertools.count(1)
    for split, examples in splits.items():
        found.splits[split] = len(examples)
        keys[split] = _check_split(found, split, examples, hashes, lambda: on_examples(next(done)))
    for first, second in itertools.combinations(keys, 2):
        shared = [keys[second][key].id for key in keys[second] if key in keys[first]]
        if shared:
            found.errors.append(
                f"{len(shared)} examples of {second} have an image and prompt of {first}: {_named(shared)}"
            )
    return found


def _read_jsonl(path: Path) -> tuple[TaskCheck, dict[str, Sequence[Example]]]:
    found = TaskCheck(path.resolve().name)
    splits: dict[str, list[Example]] = {}
    given: dict[str, set[str]] = {}
    for file, split in task_files(path):
        for row in read_rows(file, split):
            if isinstance(row, Row):
                name = row.split or "train and test"
                splits.setdefault(name, []).append(row.example)
                if row.example.id != str(row.line):
                    given.setdefault(name, set()).add(row.example.id)
            else:
                found.errors.append(row.what)
    for first, second in itertools.combinations(given, 2):
        if shared := sorted(given[first] & given[second]):
            found.warnings.append(f"{len(shared)} ids are in {first} and in {second}: {_named(shared)}")
    if "train and test" in splits:
        found.warnings.append("no line names a split, so training and testing use the same examples")
    return found, dict(splits)


def _check_split(
    found: TaskCheck,
    split: str,
    examples: Sequence[Example],
    hashes: dict[object, str | None],
    on_example: Callable[[], None],
) -> dict[tuple[str, str], Example]:
    """Note the faults of one split; returns its examples by (hash of the image, prompt)."""
    keys: dict[tuple[str, str], Example] = {}
    ids: set[str] = set()
    for example in examples:
        if example.id in ids:
            found.errors.append(f"{split}: id {example.id!r} is used twice")
        if not example.answers or not all(answer.strip() for answer in example.answers):
            found.errors.append(f"{split}: id {example.id!r} has an empty answer")
        ids.add(example.id)
        if example.load_images not in hashes:
            hashes[example.load_images] = _image_hash(found, example)
        if image := hashes[example.load_images]:
            keys[image, example.prefix] = example
        on_example()
    return keys


def _image_hash(found: TaskCheck, example: Example) -> str | None:
    try:
        images = example.load_images()
    except Refusal as fault:
        found.errors.append(fault.what)
        return None
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.size).encode() + image.convert("RGB").tobytes())
    return digest.hexdigest()


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED_AT_MOST]) + (", ..." if len(ids) > NAMED_AT_MOST else "")
