"""The tasks of one scoring, opened and checked before any work is done."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pamctl.evaluation.answers import metric_named
from pamctl.refusal import UsageRefusal
from pamctl.tasks import Task, open_task


def open_tasks(
    references: Sequence[str | Path | Task], split: str, warn: Callable[[str], None]
) -> list[Task]:
    """Open tasks to score a split of each.

    Raises:
        Refusal: a task is at fault.
        UsageRefusal: two have one name, or one lacks the split or names no metric there is.
    """
    tasks = [task if isinstance(task, Task) else open_task(task) for task in references]
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageRefusal(
            f"two tasks are named {twice}", "name each task once; a JSONL task is named after its file"
        )
    for task in tasks:
        task.split(split)
        metric_named(task.metric)
        for note in task.notes:
            warn(note)
    return tasks
