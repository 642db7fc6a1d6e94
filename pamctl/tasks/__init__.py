"""What a task reference names: an embedded task, a `.jsonl` file, or a folder that holds one."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Example, Recipe, Task

__all__ = ["Example", "Recipe", "Task", "open_task"]


def open_task(reference: str | Path) -> Task:
    """Open an embedded task by name, or a JSONL task by the path of its file or folder.

    Raises:
        UsageRefusal: nothing has this name; it lists the embedded tasks and the nearest one.
        Refusal: a line of the file is at fault.
    """
    from pamctl.tasks.embedded import embedded_tasks
    from pamctl.tasks.jsonl import jsonl_task

    embedded = embedded_tasks()
    if str(reference) in embedded:
        return embedded[str(reference)]
    path = Path(reference)
    if path.is_dir() or (path.is_file() and path.suffix == ".jsonl"):
        return replace(jsonl_task(path), path=str(path))
    if path.exists():
        raise UsageRefusal(f"{path} is not a .jsonl file", "write one JSON object a line into a .jsonl file")
    nearest = get_close_matches(str(reference), embedded, n=1)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    raise UsageRefusal(
        f"no task is named {reference}, and no such path exists",
        f"{meant}Embedded tasks: {', '.join(embedded)}; or give a .jsonl file or a folder that holds one",
    )
