from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pamctl.merging import Recipe, execute, plan_merge
from pamctl.merging.devices import HOST, Place, chosen_device, place_on
from pamctl.merging.execute import Execution
from pamctl.refusal import UsageRefusal
from tests.adapter_cases import Adapter, delta, random_factors

ON_DEVICE = Place(jax.device_put, 1 << 14)
DENSE = [
    "ties",
    "magnitude-prune",
    "dare-linear",
    "dare-ties",
    "della",
    "breadcrumbs",
    "magmax",
    "consensus",
    "sce",
    "knots",
]


def adapter(seed: int) -> Adapter:
    return Adapter({"one": random_factors(seed, 300, 280, 4), "two": random_factors(seed + 50, 20, 30, 4)})


@pytest.mark.parametrize("method", DENSE)
def test_a_device_gives_what_the_host_does(method: str) -> None:
    plan = plan_merge([adapter(0), adapter(1), adapter(2)], Recipe(method, space="delta", rank=8))
    here, there = Execution(plan, HOST), Execution(plan, ON_DEVICE)
    for module in plan.modules:
        expected, found = delta(here.module(module)), delta(there.module(module))
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_nothing_is_looked_for_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert chosen_device("auto", pays=False) == "cpu"
    assert chosen_device("auto", pays=True) == "gpu"
    assert chosen_device("cpu", pays=True) == "cpu"


def test_without_a_plugin_an_accelerator_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert chosen_device("auto", pays=True) == "cpu"


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_not_there_is_refused(device: Any) -> None:
    if any(found.platform == device for found in jax.devices()):
        pytest.skip(f"there is a {device} here")
    with pytest.raises(UsageRefusal, match=f"jax finds no {device} here"):
        place_on(device)
    plan = plan_merge([adapter(0), adapter(1)], Recipe("ties", space="delta"), device=device)
    with pytest.raises(UsageRefusal, match=device):
        execute(plan)


def test_the_host_needs_no_move() -> None:
    array = np.ones(3)
    assert place_on("cpu").put(array) is array
