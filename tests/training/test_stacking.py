"""Stacked factors: their update is the sum, the frozen ones stay, and the rank grows by each task's."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.adapters import open_adapter, save_adapter
from pamctl.models.base import Base
from pamctl.models.lora import lora_from_adapter
from pamctl.models.paligemma import Lora
from pamctl.refusal import UsageRefusal
from pamctl.tasks import open_task
from pamctl.training.finished import finished_adapter
from pamctl.training.inheritance import Inheritance
from pamctl.training.preparation import Prepared, prepare
from pamctl.training.stacking import stacked
from tests.training_cases import CONFIG


def random_lora(rank: int, seed: int) -> Lora:
    """Two layers of one module, 5 to 4."""
    draws = np.random.default_rng(seed)
    a, b = draws.normal(size=(2, 5, rank)), draws.normal(size=(2, rank, 4))
    return {"language_model": {"q_proj": {"a": jnp.float32(a), "b": jnp.float32(b)}}}


def delta(lora: Lora, scale: float = 1.0) -> np.ndarray:
    factors = lora["language_model"]["q_proj"]
    return scale * np.einsum("lir,lro->lio", factors["a"], factors["b"])


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_the_update_is_the_sum(scale: float) -> None:
    frozen, new = random_lora(3, 0), random_lora(2, 1)
    both = stacked(frozen, new, scale)
    assert both["language_model"]["q_proj"]["a"].shape == (2, 5, 5)
    np.testing.assert_allclose(delta(both, scale), delta(frozen) + delta(new, scale), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        both["language_model"]["q_proj"]["a"][:, :, :3], frozen["language_model"]["q_proj"]["a"]
    )


def test_no_gradient_reaches_the_frozen_factors() -> None:
    def size(frozen: Lora, new: Lora) -> jax.Array:
        factors = stacked(frozen, new, 2.0)["language_model"]["q_proj"]
        return jnp.square(factors["a"] @ factors["b"]).sum()

    of_frozen, of_new = jax.grad(size, argnums=(0, 1))(random_lora(3, 0), random_lora(2, 1))
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_frozen))
    assert all(leaf.all() for leaf in jax.tree.leaves(of_new))


def olora(inputs: Path, base: Base, before: Path, **settings: Any) -> Prepared:
    given: Any = {"method": "olora", "batch_size": 4, "steps": 6, **settings}
    return prepare([open_task(inputs / "shapes.jsonl")], base, Inheritance(open_adapter(before)), given)


def test_ranks_add_up_over_three_tasks(inputs: Path, base: Base, tmp_path: Path) -> None:
    before, ranks = inputs / "first", []
    for task, (rank, alpha) in enumerate(((2, 4.0), (1, 3.0))):
        run = olora(inputs, base, before, rank=rank, alpha=alpha, seed=task)
        old = lora_from_adapter(open_adapter(before), CONFIG)
        moved = jax.tree.map(lambda leaf: leaf + 0.5, run.run.start)
        adapter = finished_adapter(run, moved, "stacked")
        ranks.append(adapter.rank)
        before = tmp_path / str(task)
        before.mkdir()
        save_adapter(adapter, before)
        found = lora_from_adapter(open_adapter(before), CONFIG)
        for kind in ("q_proj", "v_proj"):
            new, whole = moved["language_model"][kind], found["language_model"][kind]
            width = old["language_model"][kind]["a"].shape[2]
            np.testing.assert_array_equal(whole["a"][:, :, :width], old["language_model"][kind]["a"])
            np.testing.assert_array_equal(whole["b"][:, :width], old["language_model"][kind]["b"])
            np.testing.assert_allclose(whole["b"][:, width:], alpha / rank * new["b"], rtol=1e-6)
    assert ranks == [5, 6]


def test_new_factors_start_fresh_beside_all_before(inputs: Path, base: Base) -> None:
    run = olora(inputs, base, inputs / "first", seed=1).run
    before = lora_from_adapter(open_adapter(inputs / "first"), CONFIG)
    assert run.how["stack"]
    assert not any(np.any(factors["b"]) for factors in run.start["language_model"].values())
    for kind, factors in run.reference["language_model"].items():
        np.testing.assert_array_equal(factors["a"], before["language_model"][kind]["a"])


def test_a_later_task_s_fresh_factors_are_its_own(inputs: Path, base: Base) -> None:
    """The seed of a sequence is one: what is orthogonal to a task before does not start as that task did."""
    task = open_task(inputs / "colours.jsonl")
    given: Any = {"method": "olora", "batch_size": 4, "steps": 6}
    first = prepare([task], base, Inheritance(), given).run.start
    second = olora(inputs, base, inputs / "first").run.start
    for kind, factors in second["language_model"].items():
        assert not np.array_equal(factors["a"], first["language_model"][kind]["a"])


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"align": True}, "alignment exclude each other"),
        ({"terms": ["l2"]}, "--term l2 exclude each other"),
        ({"method": "finetune", "terms": ["orth"]}, "holds new factors against frozen ones"),
    ],
)
def test_what_does_not_go_with_stacking_is_refused(
    inputs: Path, base: Base, settings: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageRefusal, match=what):
        olora(inputs, base, inputs / "first", **settings)
