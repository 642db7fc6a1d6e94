"""The pictures of examples, for the web page of a report: from embedded tasks, and tasks that are named."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from pamctl.refusal import Refusal
from pamctl.tasks import Example, Task, open_task
from pamctl.tasks.task import TEST


class TaskPictures:
    """Gives the picture of an example, or the first frame of a video.

    Args:
        tasks: beside the embedded ones, opened or where they are; each is known by its own name.
        split: whose examples are asked for.

    Raises:
        Refusal: a task cannot be opened.
    """

    def __init__(self, tasks: Sequence[str | Path | Task] = (), split: str = TEST) -> None:
        opened = [task if isinstance(task, Task) else open_task(task) for task in tasks]
        self._named = {task.name: task for task in opened}
        self._split = split
        self._examples: dict[str, dict[str, Example]] = {}

    @property
    def unknown(self) -> list[str]:
        """The names that pictures were asked of, and that no task has."""
        return [name for name in self._examples if self._task(name) is None]

    def __call__(self, task: str, example: str) -> Image.Image | None:
        """None where no task of that name is known, it has no such example, or its image cannot be read."""
        if task not in self._examples:
            self._examples[task] = self._examples_of(task)
        found = self._examples[task].get(example)
        if found is None:
            return None
        try:
            return next(iter(found.load_images()), None)
        except (OSError, Refusal):
            return None

    def _examples_of(self, name: str) -> dict[str, Example]:
        task = self._task(name)
        if task is None or self._split not in task.splits:
            return {}
        return {example.id: example for example in task.splits[self._split]}

    def _task(self, name: str) -> Task | None:
        return self._named.get(name) or self._embedded.get(name)

    @cached_property
    def _embedded(self) -> dict[str, Task]:
        from pamctl.tasks.embedded import embedded_tasks

        return dict(embedded_tasks())
