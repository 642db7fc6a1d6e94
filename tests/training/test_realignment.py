"""Alignment on the device against alignment on the host: the same weights, the same counts."""

from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter
from pamctl.alignment import Reinit, Scope, align
from pamctl.models.lora import lora_from_adapter, lora_to_adapter
from pamctl.models.paligemma import Lora
from pamctl.training.configuration import Alignment
from pamctl.training.realignment import anchor_of, to_event
from tests.training_cases import CONFIG


@pytest.fixture(scope="module")
def reference(inputs: Path) -> Adapter:
    return open_adapter(inputs / "first")


def disturbed(adapter: Adapter) -> Lora:
    """The adapter with about half of its signs drawn anew."""
    lora = lora_from_adapter(adapter, CONFIG)
    draws = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(draws.normal(0, 0.3, leaf.shape), jnp.float32), lora)


@pytest.mark.parametrize("reinit", get_args(Reinit))
@pytest.mark.parametrize("scope", get_args(Scope))
def test_the_device_does_what_align_does(reference: Adapter, scope: Scope, reinit: Reinit) -> None:
    lora = disturbed(reference)
    host, report = align(Adapter(lora_to_adapter(lora, 1.0, CONFIG)), reference, 30, scope, reinit)
    anchor = anchor_of(
        reference, lora_from_adapter(reference, CONFIG), Alignment(30, 1, scope, reinit), CONFIG
    )
    aligned, counts = anchor.realign(lora)
    assert anchor.report(counts) == report
    for module, factors in lora_to_adapter(aligned, 1.0, CONFIG).items():
        np.testing.assert_array_equal(factors.a, host.modules[module].a)
        np.testing.assert_array_equal(factors.b, host.modules[module].b)


def test_nothing_is_important_at_top_p_0(reference: Adapter) -> None:
    lora = disturbed(reference)
    before = jax.tree.map(np.asarray, lora)
    anchor = anchor_of(
        reference, lora_from_adapter(reference, CONFIG), Alignment(0, 1, "global", "global"), CONFIG
    )
    aligned, counts = anchor.realign(lora)
    jax.tree.map(np.testing.assert_array_equal, aligned, before)
    report = anchor.report(counts)
    assert report is not None
    assert report.overall.conflicts == 0 < report.overall.differ


def test_not_a_number_is_told(reference: Adapter) -> None:
    lora = disturbed(reference)
    lora["language_model"]["q_proj"]["a"] = lora["language_model"]["q_proj"]["a"].at[1, 0, 0].set(jnp.nan)
    anchor = anchor_of(
        reference, lora_from_adapter(reference, CONFIG), Alignment(50, 1, "tensor", "global"), CONFIG
    )
    assert anchor.report(anchor.realign(lora)[1]) is None


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
