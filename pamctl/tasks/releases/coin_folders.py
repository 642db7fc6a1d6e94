"""Where the instructions and images of CoIN lie: by task in one folder, and the images of all in another.

Instructions_Original/ScienceQA/train.json      as on the Hub, or in `playground` as CoIN's scripts have it
cl_dataset/ScienceQA/images/train/1/image.png   beside either
"""

from collections.abc import Collection
from pathlib import Path

from pamctl.known_names import meant
from pamctl.refusal import UsageRefusal
from pamctl.tasks.releases.record import first_record
from pamctl.tasks.releases.release import Release

ORIGINAL = "Instructions_Original"
ROOTS = ("cl_dataset", "../cl_dataset", "../../cl_dataset", "../../../cl_dataset")
"""The images, from the folder of a task on, or from one that holds the instructions."""


def task_of(release: Release, tasks: Collection[str]) -> str:
    """The name of the task that is meant, as the TOML tells, or the folder, in any capitals.

    Raises:
        UsageRefusal: neither does, or it is not known.
    """
    said = release.options.get("task")
    name = release.folder.resolve().name if said is None else str(said)
    for task in tasks:
        if task.lower() == name.lower():
            return task
    if said is not None:
        what = f"{release.folder}: task is {said!r}"
    else:
        what = f"{release.folder} is not the folder of one task of CoIN"
    raise UsageRefusal(what, f"{meant(name, tasks)}name that folder, or in a TOML `task`: {', '.join(tasks)}")


def folder_of(release: Release, task: str) -> Path:
    """The folder that has the files of a task."""
    if (release.folder / "train.json").is_file():
        return release.folder
    instructions = str(release.options.get("instructions", ORIGINAL))
    for place in (instructions, f"playground/{instructions}", "."):
        if (release.folder / place / task).is_dir():
            return release.folder / place / task
    raise UsageRefusal(
        f"{release.folder} has no {instructions}/{task}",
        "name the folder of the task as `data`, or one that holds the instructions",
    )


def file_of(release: Release, task: str, name: str) -> Path:
    """A side file of a task, in its folder or among the images.

    Raises:
        UsageRefusal: it is nowhere.
    """
    folder = folder_of(release, task)
    for place in (folder, *(release.folder / root / task for root in ROOTS)):
        if (place / name).is_file():
            return place / name
    raise UsageRefusal(
        f"{folder} has no {name}, by which CoIN scores {task}",
        f"put it there as its authors release it, or into cl_dataset/{task}",
    )


def holds_coin(release: Release) -> bool:
    """Whether a folder is that of one task, with conversations to train on, or holds the instructions."""
    file = release.folder / "train.json"
    if not file.is_file():
        return any((release.folder / place / ORIGINAL).is_dir() for place in (".", "playground"))
    first = first_record(file)
    return first is not None and "conversations" in first.fields
