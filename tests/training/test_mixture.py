"""Several tasks at once: how often each is seen, in which order, and what they must have in common."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.models.base import Base
from pamctl.refusal import UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.task import Task
from pamctl.training.epochs import Visits
from pamctl.training.inheritance import Inheritance
from pamctl.training.mixture import Mixing, mixed_visits, visits_of
from pamctl.training.preparation import Prepared, prepare
from tests.training_cases import EXAMPLES


@pytest.mark.parametrize(
    ("mixing", "visits"),
    [
        ("proportional", (900, 400, 100)),
        # a third each
        ("uniform", (467, 466, 467)),
        # 30 : 20 : 10 of 1400
        ("square-root", (700, 467, 233)),
    ],
)
def test_visits_by_hand(mixing: Mixing, visits: tuple[int, ...]) -> None:
    assert visits_of([900, 400, 100], mixing) == visits


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.sampled_from(["uniform", "square-root"]))
def test_no_visit_is_lost(alone: list[int], mixing: Mixing) -> None:
    visits = visits_of(alone, mixing)
    assert sum(visits) == sum(alone)
    power = {"uniform": 0.0, "square-root": 0.5}[mixing]
    shares = np.array(alone) ** power
    np.testing.assert_allclose(visits, shares / shares.sum() * sum(alone), atol=1)
    assert visits_of(alone, "proportional") == tuple(alone)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 60)), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(0, 2**32 - 1),
)
def test_each_example_of_each_task_is_seen_as_often_as_it_should(
    tasks: list[tuple[int, int]], batch: int, seed: int
) -> None:
    sizes, visits = (tuple(of) for of in zip(*tasks, strict=True))
    if not sum(visits):
        return
    steps = -(-sum(visits) // batch)
    seen = np.concatenate(
        [mixed_visits(sizes, visits, batch, seed, step + 1).examples for step in range(steps)]
    )
    counts, first = Counter(seen[: sum(visits)].tolist()), 0
    for size, count in zip(sizes, visits, strict=True):
        of_task = [counts[first + example] for example in range(size)]
        assert sum(of_task) == count
        assert set(of_task) <= {count // size, -(-count // size)}
        first += size
    assert set(counts) <= set(range(sum(sizes)))


def test_a_step_depends_on_the_seed_and_its_number_alone() -> None:
    def steps(seed: int, numbers: list[int]) -> dict[int, list[int]]:
        return {
            number: mixed_visits((10, 5), (30, 20), 4, seed, number).examples.tolist() for number in numbers
        }

    onward, back = steps(3, list(range(1, 20))), steps(3, list(range(19, 0, -1)))
    mixed_visits((7, 7), (7, 7), 4, 3, 1)  # another run in between
    assert onward == back == steps(3, list(range(1, 20)))
    assert onward != steps(4, list(range(1, 20)))


def test_tasks_are_shuffled_as_a_whole() -> None:
    tasks = (
        np.concatenate([mixed_visits((100, 100), (100, 100), 10, 0, step).examples for step in range(1, 21)])
        >= 100
    )
    # Of 20 steps of 10 no half is of one task.
    assert 30 < tasks[:100].sum() < 70


@pytest.fixture(scope="module")
def tasks(inputs: Path) -> tuple[Task, Task]:
    return open_task(inputs / "colours.jsonl"), open_task(inputs / "shapes.jsonl")


def mixed(base: Base, tasks: tuple[Task, ...], **settings: Any) -> Prepared:
    return prepare(tasks, base, Inheritance(), {"method": "multitask", **settings})  # type: ignore[typeddict-item]


def test_two_tasks_as_often_as_alone(base: Base, tasks: tuple[Task, Task]) -> None:
    colours, shapes = tasks
    longer = replace(shapes, recipe=replace(shapes.recipe, epochs=6))
    prepared = mixed(base, (colours, longer), batch_size=5)
    config = prepared.run.configuration
    # 3 epochs of ten and 6 epochs of ten, by five.
    assert (config.task, config.steps) == ("colours+shapes", 18)
    seen = np.concatenate([prepared.run.order(step).examples for step in range(1, 19)])
    assert Counter(seen.tolist()) == {place: 3 if place < EXAMPLES else 6 for place in range(2 * EXAMPLES)}
    even = mixed(base, (colours, longer), batch_size=5, mixing="uniform").run
    seen = np.concatenate([even.order(step).examples for step in range(1, 19)])
    assert (seen < EXAMPLES).sum() == 45


def test_steps_are_shared_by_size(base: Base, tasks: tuple[Task, Task]) -> None:
    run = mixed(base, tasks, batch_size=4, steps=5).run
    assert run.configuration.steps == 5
    assert Counter(
        (np.concatenate([run.order(step).examples for step in range(1, 6)]) < EXAMPLES).tolist()
    ) == {
        True: 10,
        False: 10,
    }


def test_each_example_keeps_its_smoothing_and_answer(base: Base, tasks: tuple[Task, Task]) -> None:
    colours, shapes = tasks
    smooth = replace(shapes, recipe=replace(shapes.recipe, label_smoothing=0.2))
    run = mixed(base, (colours, smooth), batch_size=4, steps=5).run
    assert run.configuration.label_smoothing is None
    np.testing.assert_array_equal(
        run.split.smoothing, np.array([0] * EXAMPLES + [0.2] * EXAMPLES, np.float32)
    )
    alone = mixed(base, (smooth,), batch_size=4, steps=5).run.split
    both, single = run.split.batch(Visits.first([EXAMPLES + 3])), alone.batch(Visits.first([3]))
    np.testing.assert_array_equal(both.texts.tokens, single.texts.tokens)
    np.testing.assert_array_equal(both.images, single.images)
    assert run.configuration.to_json()["label_smoothing"] is None
    assert mixed(base, tasks, batch_size=4, steps=5).run.configuration.label_smoothing == 0


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("batch_size", 8, "--batch-size"),
        ("learning_rate", 0.1, "--lr"),
        ("weight_decay", 1e-6, "--weight-decay"),
    ],
)
def test_other_recipes_are_refused_with_the_option_to_give(
    base: Base, tasks: tuple[Task, Task], field: str, value: float, option: str
) -> None:
    colours, shapes = tasks
    changed: Any = {field: value}
    recipe = replace(shapes.recipe, **changed)
    other = replace(shapes, recipe=recipe)
    with pytest.raises(UsageRefusal) as refused:
        mixed(base, (colours, other), steps=5)
    assert f"several values of {option}" in refused.value.what
    assert f"{value} for shapes" in refused.value.what
    assert option in refused.value.way_on
    assert mixed(base, (colours, other), **{"batch_size": 5, **changed}, steps=5).run.configuration.steps == 5


def test_several_tasks_are_for_multitask_and_each_once(base: Base, tasks: tuple[Task, Task]) -> None:
    with pytest.raises(UsageRefusal, match="2 tasks are given"):
        prepare(tasks, base, Inheritance(), {"method": "pam"})
    with pytest.raises(UsageRefusal, match="two tasks are called colours"):
        mixed(base, (tasks[0], tasks[0]), steps=5)
