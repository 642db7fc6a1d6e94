"""Alignment on the device against alignment on the host: the same weights, the same counts."""

import math
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax.tree_utils import tree_get, tree_set  # type: ignore[import-untyped]

from pamctl.adapters import Adapter, open_adapter
from pamctl.alignment import Reinit, Scope, align
from pamctl.models.lora import lora_from_adapter, lora_to_adapter
from pamctl.models.paligemma import Lora
from pamctl.training.configuration import Alignment, Moments
from pamctl.training.loop import initial_state
from pamctl.training.optimizer import OptimizerState
from pamctl.training.realignment import Anchor, anchor_of, to_event
from tests.training_cases import CONFIG


@pytest.fixture(scope="module")
def reference(inputs: Path) -> Adapter:
    return open_adapter(inputs / "first")


def disturbed(adapter: Adapter) -> Lora:
    """The adapter with about half of its signs drawn anew."""
    lora = lora_from_adapter(adapter, CONFIG)
    draws = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(draws.normal(0, 0.3, leaf.shape), jnp.float32), lora)


def anchored(reference: Adapter, alignment: Alignment, start: Lora | None = None) -> Anchor:
    """The anchor of the adapter for a task that starts from it, or from elsewhere."""
    lora = lora_from_adapter(reference, CONFIG)
    return anchor_of(reference, lora, start or lora, alignment, CONFIG)


def moments_of(lora: Lora) -> OptimizerState:
    """The state of the optimiser with both of Adam's moments 1 for every weight."""
    ones = jax.tree.map(jnp.ones_like, lora)
    moments: OptimizerState = tree_set(
        initial_state(lora).optimizer, mu=ones, nu=jax.tree.map(jnp.copy, ones)
    )
    return moments


@pytest.mark.parametrize("reinit", get_args(Reinit))
@pytest.mark.parametrize("scope", get_args(Scope))
def test_the_device_does_what_align_does(reference: Adapter, scope: Scope, reinit: Reinit) -> None:
    lora = disturbed(reference)
    host, report = align(Adapter(lora_to_adapter(lora, 1.0, CONFIG)), reference, 30, scope, reinit)
    anchor = anchored(reference, Alignment(30, 1, scope, reinit))
    aligned, _, counts = anchor.realign(lora, moments_of(lora))
    assert anchor.report(counts) == report
    for module, factors in lora_to_adapter(aligned, 1.0, CONFIG).items():
        np.testing.assert_array_equal(factors.a, host.modules[module].a)
        np.testing.assert_array_equal(factors.b, host.modules[module].b)


def test_nothing_is_important_at_top_p_0(reference: Adapter) -> None:
    lora = disturbed(reference)
    before = jax.tree.map(np.asarray, lora)
    anchor = anchored(reference, Alignment(0, 1, "global", "global"))
    aligned, _, counts = anchor.realign(lora, moments_of(lora))
    jax.tree.map(np.testing.assert_array_equal, aligned, before)
    report = anchor.report(counts)
    assert report is not None
    assert report.overall.conflicts == 0 < report.overall.differ


def test_not_a_number_is_told(reference: Adapter) -> None:
    lora = disturbed(reference)
    lora["language_model"]["q_proj"]["a"] = lora["language_model"]["q_proj"]["a"].at[1, 0, 0].set(jnp.nan)
    anchor = anchored(reference, Alignment(50, 1, "tensor", "global"))
    _, _, counts = anchor.realign(lora, moments_of(lora))
    assert anchor.report(counts) is None


def top_30(leaf: jax.Array) -> np.ndarray:
    """The top 30 % of each layer of a leaf by magnitude."""
    magnitudes = np.abs(np.asarray(leaf)).reshape(len(leaf), -1)
    tau = np.sort(magnitudes)[:, -math.ceil(0.3 * magnitudes.shape[1])]
    return np.abs(np.asarray(leaf)) >= tau[:, None, None]


@pytest.fixture
def conflicts(reference: Adapter) -> Lora:
    """Where `disturbed` has another sign than one of the adapter's top weights."""
    own = lora_from_adapter(reference, CONFIG)
    found: Lora = jax.tree.map(
        lambda of, to: np.not_equal(np.sign(of), np.sign(to)) & top_30(to), disturbed(reference), own
    )
    assert all(leaf.any() and not leaf.all() for leaf in jax.tree.leaves(found))
    return found


def test_reinit_init_puts_back_what_the_task_started_from(reference: Adapter, conflicts: Lora) -> None:
    lora = disturbed(reference)
    before = jax.tree.map(np.asarray, lora)
    start = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), lora)
    anchor = anchored(reference, Alignment(30, 1, "tensor", "init"), start)
    aligned, _, counts = anchor.realign(lora, moments_of(lora))
    expected = jax.tree.map(lambda there, of: np.where(there, 7, of), conflicts, before)
    jax.tree.map(np.testing.assert_array_equal, aligned, expected)
    report = anchor.report(counts)
    assert report is not None
    assert report.overall.conflicts == sum(leaf.sum() for leaf in jax.tree.leaves(conflicts))


@pytest.mark.parametrize("moments", get_args(Moments))
def test_first_moments_of_weights_put_back_are_kept_or_reset(
    reference: Adapter, conflicts: Lora, moments: Moments
) -> None:
    lora = disturbed(reference)
    anchor = anchored(reference, Alignment(30, 1, "tensor", "global", moments=moments))
    _, found, _ = anchor.realign(lora, moments_of(lora))
    kept = jax.tree.map(lambda there: np.where(there & (moments == "reset"), 0.0, 1.0), conflicts)
    jax.tree.map(np.testing.assert_array_equal, tree_get(found, "mu"), kept)
    jax.tree.map(lambda second: np.testing.assert_array_equal(second, 1), tree_get(found, "nu"))


def test_the_event_holds_shares_and_counts_of_modules_and_factors(reference: Adapter) -> None:
    _, report = align(Adapter(lora_to_adapter(disturbed(reference), 1.0, CONFIG)), reference, 30)
    event = to_event(report)
    for count in ("differ", "conflicts"):
        told = event[count]
        for factor, of in {"overall": report.overall, **report.factors}.items():
            assert told["percent"][factor] == pytest.approx(100 * getattr(of, count) / of.weights, abs=1e-4)
        assert set(told["modules"]) == set(reference.shapes)
        total = sum(sum(factors.values()) for factors in told["modules"].values())
        assert total == getattr(report.overall, count)
