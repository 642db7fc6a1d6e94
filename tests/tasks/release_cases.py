"""Miniatures of releases as tests use them: copied, with a file changed, and what is said of them."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pamctl.evaluation.answers import metric_named
from pamctl.refusal import Refusal
from pamctl.tasks import Example, Task, open_task
from pamctl.tasks.splits import ReadSplits

RELEASES = Path(__file__).parents[2] / "fixtures" / "releases"


def script(name: str) -> ModuleType:
    """A script of `fixtures/releases`, such as `drawing` or `make_gqa`, as a module."""
    if str(RELEASES) not in sys.path:
        sys.path.insert(0, str(RELEASES))
    return importlib.import_module(name)


def copied(name: str, tmp_path: Path) -> Path:
    """A copy of a miniature, in a folder of its name."""
    folder = tmp_path / name
    shutil.copytree(RELEASES / name, folder)
    return folder


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    """Load a JSON file, change what it holds in place, and write it with one key a line."""
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def with_toml(folder: Path, text: str) -> Path:
    """Write `task.toml` into a folder; returns the folder."""
    (folder / "task.toml").write_text(text, encoding="utf-8")
    return folder


def rows(task: Task, split: str) -> list[Example | Refusal]:
    """Every example of a split, or what is said of it."""
    assert isinstance(task.splits, ReadSplits)
    return list(task.splits.rows(split))


def faults(folder: Path, split: str) -> list[str]:
    """What is said of a split's examples that are at fault, the folder's path left out."""
    found = rows(open_task(folder), split)
    return [row.what.replace(f"{folder}/", "") for row in found if isinstance(row, Refusal)]


def texts(examples: list[Example]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Id, prompt and answers of each."""
    return [(example.id, example.prefix, example.answers) for example in examples]


def pixels(example: Example) -> np.ndarray:
    """Of an example's only image: (height, width, 3) uint8."""
    (image,) = example.load_images()
    return np.asarray(image)


def drawn(seed: int) -> np.ndarray:
    """What `drawing.picture` draws: (12, 16, 3) uint8."""
    return np.asarray(script("drawing").picture(seed))


def near(found: np.ndarray, seed: int) -> bool:
    """Whether an image is what `drawing.picture` draws, as a JPEG keeps it."""
    return found.shape == drawn(seed).shape and float(np.abs(found - drawn(seed).astype(int)).mean()) < 25


def score(task: Task, prediction: str, example: Example) -> float:
    """By the task's own metric."""
    return metric_named(task.metric).score(prediction, example.answers)
