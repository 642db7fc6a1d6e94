"""What a task reference names: an embedded task, a `.jsonl` or `.toml`, or a folder with one or a release."""

from dataclasses import replace
from pathlib import Path

from pamctl.known_names import meant
from pamctl.refusal import UsageRefusal
from pamctl.tasks.characters import whole_characters
from pamctl.tasks.task import Example, Recipe, Task

__all__ = ["Example", "Recipe", "Task", "open_task"]


def open_task(reference: str | Path) -> Task:
    """Open an embedded task by name, or a task on disk by the path of its file or folder.

    Raises:
        UsageRefusal: nothing has this name; it lists the embedded tasks and the nearest one.
        Refusal: a line of the file is at fault.
    """
    from pamctl.tasks.embedded import embedded_tasks

    embedded = embedded_tasks()
    if str(reference) in embedded:
        return embedded[str(reference)]
    path = Path(reference)
    if path.exists():
        task = _task_at(path)
        if not whole_characters([task.name]):
            raise UsageRefusal(f"{reference}: its name is not UTF-8, and no record can hold it", "rename it")
        return task
    raise UsageRefusal(
        f"no task is named {reference}, and no such path exists",
        f"{meant(str(reference), embedded)}Embedded tasks: {', '.join(embedded)}; "
        "or give a .jsonl or .toml file, or a folder that holds one or a release",
    )


def _task_at(path: Path) -> Task:
    from pamctl.tasks.jsonl import holds_jsonl, jsonl_task
    from pamctl.tasks.readers import readers
    from pamctl.tasks.task_file import FILE_NAME, read_task_file, recognised

    if path.is_dir() and (path / FILE_NAME).is_file():
        return read_task_file(path / FILE_NAME).task()
    if path.suffix == ".toml" and path.is_file():
        return read_task_file(path).task()
    if path.suffix == ".jsonl" or (path.is_dir() and holds_jsonl(path)):
        return _with_notes(replace(jsonl_task(path), path=str(path)), path.parent / FILE_NAME)
    if path.is_dir() and (found := recognised(path)):
        return found.task()
    if not path.is_dir():
        raise UsageRefusal(
            f"{path} is no .jsonl and no .toml file", "write one JSON object a line into a .jsonl file"
        )
    raise UsageRefusal(
        f"{path} holds no {FILE_NAME}, no task.jsonl, no train.jsonl, val.jsonl or test.jsonl, "
        "and no release that is known",
        f"add one of them; readers of releases are: {', '.join(readers())}",
    )


def _with_notes(task: Task, unused: Path) -> Task:
    """The task, with a note where a TOML lies beside the file that was named."""
    if not unused.is_file() or unused.parent == Path(str(task.path)):
        return task
    note = f"{unused} is not used: name its folder, and it is"
    return replace(task, notes=(*task.notes, note))
