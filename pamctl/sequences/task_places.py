"""Where the tasks of a sequence are: embedded, at a path of their own, or in the data folder."""

import os
import re
from pathlib import Path

from pamctl.known_names import meant
from pamctl.refusal import UsageRefusal
from pamctl.sequences.contents import SequenceFile, TaskEntry
from pamctl.tasks.embedded import embedded_tasks

ENDINGS = ("", ".toml", ".jsonl")
_VARIABLE = re.compile(r"\$\{?(\w+)")


def located(file: SequenceFile, data: str | None = None) -> dict[str, str]:
    """What `train-task` is given for each task: an embedded task's name, or an absolute path.

    Args:
        data: in place of the file's; it starts from the working folder.

    Raises:
        UsageRefusal: the data folder is not known, or a task is neither there nor embedded.
    """
    embedded = embedded_tasks()
    return {
        name: name if entry.path is None and name in embedded else str(_path(file, entry, data))
        for name, entry in file.tasks.items()
    }


def _path(file: SequenceFile, entry: TaskEntry, data: str | None) -> Path:
    path = Path(_expanded(entry.path or entry.name, f"{file.place}: [tasks.{entry.name}] path"))
    if not path.is_absolute():
        path = _as_it_lies(_data_folder(file, data, entry.name) / path)
    if not path.exists():
        way_on = "put it there, or give its path, the file's data, or --data DIR"
        raise UsageRefusal(
            f"{file.place}: task {entry.name} is not at {path}", meant(entry.name, embedded_tasks()) + way_on
        )
    return path


def _as_it_lies(path: Path) -> Path:
    """A path, or else the only one there that differs in capitals or has the ending of a task's file."""
    if path.exists() or not path.parent.is_dir():
        return path
    names = [(path.name + ending).lower() for ending in ENDINGS]
    found = [each for each in path.parent.iterdir() if each.name.lower() in names]
    return found[0] if len(found) == 1 else path


def _data_folder(file: SequenceFile, data: str | None, task: str) -> Path:
    if data is not None:
        return Path(data).expanduser().absolute()
    if file.data is not None:
        return (file.folder or Path.cwd()) / _expanded(file.data, f"{file.place}: data")
    if file.folder is None:
        raise UsageRefusal(
            f"{file.place} does not tell where its tasks are, such as {task}",
            "give the folder that holds them with --data DIR",
        )
    return file.folder


def _expanded(text: str, place: str) -> str:
    expanded = os.path.expanduser(os.path.expandvars(text))
    if left := _VARIABLE.search(expanded):
        raise UsageRefusal(f"{place} is {text!r}, and {left[1]} is not set", f"set {left[1]}")
    return expanded
