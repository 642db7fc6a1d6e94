"""The embedded tasks: six generated analogues of the CoIN tasks, the same pictures on every machine."""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pamctl.tasks.embedded import gqa, ocrvqa, scienceqa, textvqa, vizwiz, vqav2
from pamctl.tasks.embedded.drawn import Drawn
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.task import Example, Recipe, Task

TRAIN_EXAMPLES = 3000
TEST_EXAMPLES = 400
RECIPE = Recipe(epochs=1, batch_size=24, learning_rate=3e-3, align_every=10)

_MODULES: dict[str, ModuleType] = {
    "tiny-scienceqa": scienceqa,
    "tiny-textvqa": textvqa,
    "tiny-gqa": gqa,
    "tiny-vizwiz": vizwiz,
    "tiny-vqav2": vqav2,
    "tiny-ocrvqa": ocrvqa,
}

ORDERS: tuple[tuple[str, ...], ...] = (
    ("tiny-scienceqa", "tiny-textvqa", "tiny-gqa", "tiny-vizwiz", "tiny-vqav2", "tiny-ocrvqa"),
    ("tiny-gqa", "tiny-ocrvqa", "tiny-vqav2", "tiny-scienceqa", "tiny-vizwiz", "tiny-textvqa"),
    ("tiny-vizwiz", "tiny-vqav2", "tiny-textvqa", "tiny-ocrvqa", "tiny-scienceqa", "tiny-gqa"),
)


class GeneratedExamples(Sequence[Example]):
    """Examples drawn when asked for, each from (stream, index) alone."""

    def __init__(self, draw: Callable[[Draws], Drawn], stream: str, count: int) -> None:
        self._draw, self._stream, self._count = draw, stream, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        drawn = self._draw(Draws(0, self._stream, index))
        return Example(str(index), drawn.prefix, (drawn.answer,), partial(_picture, drawn.pixels))


def embedded_tasks() -> dict[str, Task]:
    """Every embedded task by name; making them costs nothing, examples are drawn on access."""
    return {name: _task(name, module) for name, module in _MODULES.items()}


def _task(name: str, module: ModuleType) -> Task:
    sizes = {"train": TRAIN_EXAMPLES, "test": TEST_EXAMPLES}
    return Task(
        name=name,
        splits={split: GeneratedExamples(module.draw, f"{name}/{split}", n) for split, n in sizes.items()},
        description=module.DESCRIPTION,
        text_length=48,
        max_new_tokens=6,
        recipe=RECIPE,
    )


def _picture(pixels: NDArray[np.uint8]) -> tuple[Image.Image]:
    return (Image.fromarray(pixels),)
