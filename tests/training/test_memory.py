"""What a step takes of a device's memory, against sizes worked out by hand and what saves it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from pamctl.models.base import Base
from pamctl.training.loop import Run
from pamctl.training.memory import StepMemory, step_memory
from tests.training_cases import second_task

MEMORY = StepMemory(weights=50, adapter=5, optimizer=10, batch=1, activations=34, available=100)


def run_of(inputs: Path, base: Base, **settings: Any) -> Run:
    return second_task(inputs, base, steps=2, **settings).run


def numbers(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_what_lies_there_is_counted_to_the_byte(inputs: Path, base: Base) -> None:
    run = run_of(inputs, base, batch_size=4)
    found = step_memory(run)
    assert run.anchor is not None
    trained, thresholds = numbers(run.start), numbers(run.anchor.thresholds)
    assert found.weights == 4 * numbers(base.parameters)
    assert found.adapter == 4 * (trained + trained + thresholds)
    assert found.optimizer == 4 * (2 * trained + 2)
    features = 4 * base.config.text.hidden_size
    texts, smoothing = 4 * 8 + 2 * 4, 4
    assert found.batch == 4 * (4 * features + texts + smoothing)
    assert found.activations is not None
    assert found.activations > 4 * trained


@pytest.mark.parametrize(
    ("saving", "plain"),
    [({"accumulate": 8}, {}), ({}, {"remat": "none"})],
    ids=["accumulated", "computed again"],
)
def test_what_saves_memory_takes_less(
    inputs: Path, base: Base, saving: dict[str, Any], plain: dict[str, Any]
) -> None:
    small, large = (
        step_memory(run_of(inputs, base, **{"batch_size": 64, **of})).activations for of in (saving, plain)
    )
    assert small is not None
    assert large is not None
    assert small < 0.8 * large


def test_it_fits_if_the_device_has_as_much() -> None:
    assert (MEMORY.needed, MEMORY.fits) == (100, True)
    assert replace(MEMORY, activations=35).fits is False
    assert replace(MEMORY, available=None).fits is None
    assert (replace(MEMORY, activations=None).fits, replace(MEMORY, activations=None).needed) == (None, 66)
    assert MEMORY.to_json()["needed"] == 100
