"""Conflicts by layer: pooled over modules and stages, in the order of the model."""

from typing import Any

import pytest

from pamctl.evaluation.conflicts import Diagnosis, conflicts_of, layer_of


def counts(important: int, conflicts: int) -> dict[str, int]:
    return {"weights": 100, "differ": 10, "important": important, "conflicts": conflicts}


def stage(**modules: dict[str, Any]) -> Diagnosis:
    record = {
        "order": "o",
        "seed": 0,
        "system": "pam",
        "task": "a",
        "top_p": 50,
        "conflicts": {
            "important": {"modules": {name.replace("__", "."): of for name, of in modules.items()}}
        },
    }
    found = Diagnosis.from_json(record)
    assert found is not None
    return found


def test_weights_count_the_same_over_modules_and_stages() -> None:
    first = stage(
        l__layers__10__q={"a": counts(10, 5), "b": counts(0, 0)},
        l__layers__9__q={"a": counts(40, 4), "b": counts(10, 1)},
        l__layers__10__v={"a": counts(30, 5), "b": counts(0, 0)},
    )
    second = stage(
        l__layers__10__q={"a": counts(60, 0), "b": counts(0, 0)},
        l__layers__9__q={"a": counts(40, 0), "b": counts(10, 0)},
        l__layers__10__v={"a": counts(0, 0), "b": counts(0, 0)},
    )
    found = conflicts_of("pam", [first, second])
    assert (found.layers, found.n) == (("l.layers.9", "l.layers.10"), 2)
    # layer 9: 4 of 80, 1 of 20; layer 10: 10 of 100, none important
    assert found.conflicts == {"a": (5.0, 10.0), "b": (5.0, None)}
    assert found.differ == {"a": (10.0, 10.0), "b": (10.0, 10.0)}


def test_layers_stand_from_the_input_to_the_output() -> None:
    names = ("language_model.layers.0", "multi_modal_projector.linear", "vision_tower.encoder.layers.11")
    modules = {f"{name}.q".replace(".", "__"): {"a": counts(1, 0), "b": counts(1, 0)} for name in names[::2]}
    modules["multi_modal_projector__linear"] = {"a": counts(1, 0), "b": counts(1, 0)}
    assert conflicts_of("pam", [stage(**modules)]).layers == names[::-1]


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("language_model.layers.3.self_attn.q_proj", "language_model.layers.3"),
        ("vision_tower.encoder.layers.11.mlp.fc1", "vision_tower.encoder.layers.11"),
        ("multi_modal_projector.linear", "multi_modal_projector.linear"),
    ],
)
def test_a_module_is_in_the_layer_that_its_name_tells(module: str, layer: str) -> None:
    assert layer_of(module) == layer


def test_a_stage_that_was_not_compared_tells_nothing() -> None:
    assert Diagnosis.from_json({"conflicts": None}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"conflicts": 11},
        {"conflicts": -1},
        {"important": 101},
        {"differ": 4},
        {"weights": 1e999},
        {"differ": "5"},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`conflicts` does not count the signs of each module"):
        stage(q={"a": counts(10, 5) | wrong, "b": counts(10, 5)})
