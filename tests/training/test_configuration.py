"""How settings are resolved, and which are refused before anything is read."""

from typing import Any

import pytest

from pamctl.refusal import UsageRefusal
from pamctl.tasks.task import Recipe
from pamctl.training.configuration import (
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
        ({"reinit": "init"}, "--reinit is 'init'"),
        ({"top_p": -1}, "--top-p is -1"),
        ({"top_p": 100.5}, "--top-p is 100.5"),
        ({"top_p": float("nan")}, "--top-p is nan"),
        ({"align_every": 0}, "--align-every is 0"),
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
        ("pam", None, False, ("finetune", "fresh")),
        ("average", "fresh", False, ("finetune", "fresh")),
    ],
)
def test_where_a_task_starts(method: str, init: Any, has_global: bool, resolved: tuple[str, str]) -> None:
    found, start = resolve_method({"method": method, "init": init}, has_global=has_global)
    assert (found.name, start) == resolved


@pytest.mark.parametrize(("init", "has_global"), [("previous", True), ("global", False), ("previous", False)])
def test_a_start_that_is_not_there_is_refused(init: Any, has_global: bool) -> None:
    with pytest.raises(UsageRefusal, match=f"--init {init}"):
        resolve_method({"method": "pam", "init": init}, has_global=has_global)


def test_only_a_method_that_aligns_has_an_alignment() -> None:
    assert resolve_alignment({"top_p": 30}, METHODS["average"], Recipe()) is None
    found = resolve_alignment({"top_p": 30}, METHODS["pam"], Recipe(align_every=10))
    assert found is not None
    assert (found.top_p, found.align_every, found.scope, found.reinit) == (30.0, 10, "global", "global")
