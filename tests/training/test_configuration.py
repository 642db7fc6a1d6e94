"""How settings are resolved, and which are refused before anything is read."""

from typing import Any

import pytest

from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Recipe
from pamctl.training.configuration import (
    Alignment,
    check_settings,
    resolve_alignment,
    resolve_method,
    resolve_recipe,
)
from pamctl.training.methods import METHODS


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "ewc"}, "'ewc'"),
        ({"init": "random"}, "--init is 'random'"),
        ({"scope": "layer"}, "--scope is 'layer'"),
        ({"reinit": "start"}, "--reinit is 'start'"),
        ({"top_p": -1}, "--top-p is -1"),
        ({"top_p": 100.5}, "--top-p is 100.5"),
        ({"top_p": float("nan")}, "--top-p is nan"),
        ({"align_every": 0}, "--align-every is 0"),
        ({"align_every": 1.5}, "--align-every is 1.5"),
        ({"align_every": float("nan")}, "--align-every is nan"),
        ({"align_every": float("inf")}, "--align-every is inf"),
        ({"moments": "halve"}, "--moments is 'halve'"),
        ({"adapter": "dora"}, "--adapter is 'dora'"),
        ({"experts": 0}, "--experts is 0"),
        ({"mixing": "random"}, "--mixing is 'random'"),
        ({"decay": 1.0}, "--ema is 1.0"),
        ({"rank": 0}, "--rank is 0"),
        ({"alpha": 0.0}, "--alpha is 0"),
        ({"learning_rate": 0.0}, "--lr is 0"),
        ({"learning_rate": float("inf")}, "--lr is inf"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"steps": -3}, "--steps is -3"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1.0"),
        ({"seed": -1}, "--seed is -1"),
        ({"steps": 3, "epochs": 1}, "--steps and --epochs"),
    ],
)
def test_values_out_of_range_are_refused_by_option_and_value(settings: Any, told: str) -> None:
    with pytest.raises(UsageRefusal, match=told):
        check_settings(settings)


def test_nothing_given_is_fine() -> None:
    check_settings({})
    check_settings({"rank": None, "epochs": None, "steps": None, "init": None})


def test_flags_override_the_recipe_one_by_one() -> None:
    recipe = Recipe(steps=250, batch_size=24, learning_rate=3e-3, label_smoothing=0.2)
    assert resolve_recipe({}, recipe, 1000) == {
        "steps": 250,
        "batch_size": 24,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "label_smoothing": 0.2,
        "warmup": 0.05,
        "clip": 1.0,
        "accumulate": 1,
        "remat": "elementwise",
    }
    changed = resolve_recipe({"learning_rate": 1e-3, "label_smoothing": 0.0}, recipe, 1000)
    assert (changed["learning_rate"], changed["label_smoothing"], changed["steps"]) == (1e-3, 0.0, 250)


def test_a_batch_is_accumulated_in_equal_parts() -> None:
    recipe = Recipe(steps=1, batch_size=24)
    assert resolve_recipe({"accumulate": 8}, recipe, 1000)["accumulate"] == 8
    with pytest.raises(UsageRefusal, match="--accumulate 5 does not divide the batch size 24"):
        resolve_recipe({"accumulate": 5}, recipe, 1000)


@pytest.mark.parametrize(
    ("settings", "recipe", "steps"),
    [
        ({}, Recipe(epochs=3, batch_size=32), 94),
        ({"epochs": 1}, Recipe(steps=250, batch_size=32), 32),
        ({"epochs": 1, "batch_size": 100}, Recipe(steps=250), 10),
        ({"steps": 7}, Recipe(epochs=3), 7),
    ],
)
def test_steps_or_epochs(settings: Any, recipe: Recipe, steps: int) -> None:
    assert resolve_recipe(settings, recipe, 1000)["steps"] == steps


@pytest.mark.parametrize(
    ("method", "init", "has_global", "resolved"),
    [
        ("pam", None, True, ("pam", "global")),
        ("average", None, True, ("average", "global")),
        ("finetune", None, True, ("finetune", "previous")),
        ("pam", "fresh", True, ("pam", "fresh")),
        ("finetune", "global", True, ("finetune", "global")),
        ("pam", "previous", True, ("pam", "previous")),
        ("pam", None, False, ("finetune", "fresh")),
        ("average", "fresh", False, ("finetune", "fresh")),
    ],
)
def test_where_a_task_starts(method: str, init: Any, has_global: bool, resolved: tuple[str, str]) -> None:
    found = resolve_method({"method": method, "init": init}, has_global=has_global)
    assert (found.name, found.start) == resolved


@pytest.mark.parametrize("init", ["global", "previous"])
def test_a_start_that_is_not_there_is_refused(init: Any) -> None:
    with pytest.raises(UsageRefusal, match=f"--init {init}"):
        resolve_method({"method": "pam", "init": init}, has_global=False)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "pam", "adapter": "stack"}, "--adapter stack and alignment exclude each other"),
        ({"method": "moelora", "align": True}, "--adapter moe and alignment exclude each other"),
        ({"method": "olora", "terms": ["l2"]}, "--adapter stack and --term l2 exclude each other"),
        ({"method": "pam", "terms": ["orth"]}, "--term orth holds new factors against frozen ones"),
        ({"method": "pam", "terms": ["consistency"]}, "--term consistency needs a slow adapter"),
        ({"method": "independent"}, "independent goes on from no adapter"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(settings: Any, told: str) -> None:
    with pytest.raises(UsageRefusal, match=told):
        resolve_method(settings, has_global=True)


def test_an_axis_that_is_set_replaces_the_method_s() -> None:
    given: Any = {"method": "pam", "align": False, "decay": 0.25, "terms": ["l2"], "replay": "on"}
    found = resolve_method(given, has_global=True)
    assert (found.name, found.start, found.aligns, found.decay) == ("pam", "global", False, 0.25)
    assert (found.terms, found.replays, found.merge) == (("l2",), True, METHODS["pam"].merge)


def test_only_a_method_that_aligns_has_an_alignment() -> None:
    assert resolve_alignment({"top_p": 30}, METHODS["average"], Recipe(), 100) is None
    found = resolve_alignment({"top_p": 30}, METHODS["pam"], Recipe(align_every=10), 100)
    assert found is not None
    assert (found.top_p, found.align_every, found.scope, found.reinit) == (30.0, 10, "global", "global")
    assert (found.align_at_end, found.moments) == (False, "keep")


@pytest.mark.parametrize(
    ("every", "steps", "found"), [(7.0, 100, 7), (0.25, 100, 25), (0.25, 10, 2), (0.01, 10, 1)]
)
def test_realignments_are_so_many_steps_or_a_fraction_of_all_apart(
    every: float, steps: int, found: int
) -> None:
    alignment = resolve_alignment({"align_every": every}, METHODS["pam"], Recipe(), steps)
    assert alignment is not None
    assert alignment.align_every == found


@pytest.mark.parametrize(("at_end", "due"), [(False, [3, 6]), (True, [3, 6, 7])])
def test_the_last_step_is_realigned_where_that_is_asked_for(at_end: bool, due: list[int]) -> None:
    alignment = Alignment(50, 3, "global", "global", align_at_end=at_end)
    assert [step for step in range(1, 8) if alignment.is_due(step, 7)] == due
