from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.adapters import Adapter, LoraFactors, Parent
from pamctl.adapters.extra import Extra
from pamctl.alignment import Scope, align, compare_signs, thresholds
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import Q_PROJ, child_of, on_base, random_adapter, random_factors

SCOPES: list[Scope] = ["tensor", "module", "factor", "global"]


def one_module(a: list[list[float]], b: list[list[float]], scale: float = 1.0) -> Adapter:
    return Adapter({"m": LoraFactors(np.array(a, np.float32), np.array(b, np.float32), scale)})


# Algorithm 1 by hand: 8 weights, p = 50 %, so k = 4 and tau = 0.3, the fourth of .6 .5 .4 .3 .2 .1 .05 0.
GLOBAL = one_module([[0.5, -0.1, 0.3], [-0.4, 0.2, 0.0]], [[0.05, -0.6]])
TASK = one_module([[-0.2, 0.1, 0.7], [0.1, -0.3, 0.9]], [[-0.05, 0.2]])


def values(adapter: Adapter) -> Mapping[str, Any]:
    return {module: (factors.a.tolist(), factors.b.tolist()) for module, factors in adapter.modules.items()}


def test_algorithm_1_by_hand() -> None:
    aligned, report = align(TASK, GLOBAL)
    assert values(aligned) == values(one_module([[0.5, 0.1, 0.7], [-0.4, -0.3, 0.9]], [[-0.05, -0.6]]))
    assert thresholds(GLOBAL)["m"] == (np.float32(0.3), np.float32(0.3))
    overall = report.overall
    assert (overall.weights, overall.differ, overall.important, overall.conflicts) == (8, 6, 4, 3)
    assert (overall.differ_percent, overall.conflict_percent) == (75, 75)
    assert (report.factors["a"].conflicts, report.factors["b"].conflicts) == (2, 1)
    assert report.modules["m"]["b"].conflict_percent == 100


def test_reinit_zero_by_hand() -> None:
    aligned, _ = align(TASK, GLOBAL, reinit="zero")
    assert values(aligned) == values(one_module([[0, 0.1, 0.7], [0, -0.3, 0.9]], [[-0.05, 0]]))


def test_each_scope_ranks_what_it_names() -> None:
    two = Adapter(
        {
            "m": GLOBAL.modules["m"],
            "n": LoraFactors(np.array([[5, 1]], np.float32), np.array([[8], [2]], np.float32)),
        }
    )
    expected: dict[Scope, dict[str, tuple[float, float]]] = {
        "tensor": {"m": (0.3, 0.6), "n": (5, 8)},
        "module": {"m": (0.3, 0.3), "n": (5, 5)},
        "factor": {"m": (0.4, 2), "n": (0.4, 2)},
        "global": {"m": (0.5, 0.5), "n": (0.5, 0.5)},
    }
    for scope, taus in expected.items():
        assert thresholds(two, 50, scope) == {
            m: tuple(np.float32(t) for t in pair) for m, pair in taus.items()
        }


@pytest.mark.parametrize("scope", SCOPES)
def test_with_p_0_alignment_is_the_identity(scope: Scope) -> None:
    adapter = random_adapter(1)
    aligned, report = align(adapter, random_adapter(), top_p=0, scope=scope)
    assert aligned.fingerprint == adapter.fingerprint
    assert (report.overall.important, report.overall.conflict_percent) == (0, 0)


@pytest.mark.parametrize("scope", SCOPES)
def test_an_adapter_aligned_with_itself_is_itself(scope: Scope) -> None:
    adapter = random_adapter()
    aligned, report = align(adapter, adapter, 100, scope)
    assert aligned.fingerprint == adapter.fingerprint
    assert (report.overall.differ, report.overall.conflicts) == (0, 0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(1, 1000), top_p=st.floats(0, 100), scope=st.sampled_from(SCOPES), drift=st.floats(0, 3)
)
def test_alignment_once_is_enough_and_leaves_no_conflict(
    seed: int, top_p: float, scope: Scope, drift: float
) -> None:
    reference = random_adapter()
    adapter = child_of(reference, seed=seed, drift=drift)
    once, report = align(adapter, reference, top_p, scope)
    twice, after = align(once, reference, top_p, scope)
    assert twice.fingerprint == once.fingerprint
    assert after.overall.conflicts == 0
    assert after.overall.important == report.overall.important
    for module, (tau_a, tau_b) in thresholds(reference, top_p, scope).items():
        before, now, to = adapter.modules[module], once.modules[module], reference.modules[module]
        for tau, w, aligned, g in ((tau_a, before.a, now.a, to.a), (tau_b, before.b, now.b, to.b)):
            put_back = (np.abs(g) >= tau) & (g != 0) & (np.sign(w) != np.sign(g))
            np.testing.assert_array_equal(aligned, np.where(put_back, g, w))


def test_reinit_zero_zeroes_exactly_the_conflicts() -> None:
    reference, adapter = random_adapter(), random_adapter(1)
    zeroed, report = align(adapter, reference, reinit="zero")
    count = sum(int((f.a == 0).sum() + (f.b == 0).sum()) for f in zeroed.modules.values())
    assert count == report.overall.conflicts > 0


def test_signs_are_compared_with_the_scale_folded_in() -> None:
    negative = one_module([[1.0, 2.0]], [[3.0]], scale=-2.0)
    aligned, report = align(negative, one_module([[1.0, 2.0]], [[6.0]]))
    assert report.factors["b"].conflicts == 1
    assert aligned.modules["m"].b == [[6.0]]


def test_the_record_says_what_was_done_to_what() -> None:
    reference = random_adapter(tasks=("first",), base=on_base("aa"))
    adapter = child_of(reference, seed=1, tasks=("first", "second"))
    aligned, report = align(adapter, reference, 30, "tensor", "zero")
    record = aligned.provenance
    assert record is not None
    assert (record.kind, record.stage, record.tasks) == ("aligned", "trained", ("first", "second"))
    assert record.parents == (Parent(adapter.fingerprint), Parent(reference.fingerprint))
    assert record.parameters == {
        "to": reference.fingerprint,
        "top_p": 30,
        "scope": "tensor",
        "reinit": "zero",
    }
    assert record.conflicts == report.overall.to_json()
    assert record.base == on_base("aa")


def test_alignment_with_an_unrelated_adapter_claims_no_shared_start() -> None:
    record = align(random_adapter(1), random_adapter())[0].provenance
    assert record is not None
    assert record.parents == (Parent(random_adapter(1).fingerprint),)


def test_what_cannot_be_compared_is_refused_with_both_values() -> None:
    with pytest.raises(Refusal, match="has rank 4 in adapter and 8 in wide"):
        align(random_adapter(rank=8, name="wide"), random_adapter())
    with pytest.raises(
        Refusal, match=r"language_model.layers.0.mlp.gate_proj is in adapter and not in small"
    ):
        align(Adapter({Q_PROJ: random_factors(0, 16, 16)}, name="small"), random_adapter())
    with pytest.raises(Refusal, match=r"\(aa\).*\(bb\)"):
        compare_signs(random_adapter(1, base=on_base("bb")), random_adapter(base=on_base("aa")))


@pytest.mark.parametrize(
    "options", [{"top_p": 101}, {"top_p": float("nan")}, {"scope": "layer"}, {"reinit": "init"}]
)
def test_an_option_out_of_range_is_a_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageRefusal):
        align(random_adapter(1), random_adapter(), **options)


def test_what_the_task_adapter_carries_besides_factors_passes_through() -> None:
    bias = np.ones(1, np.float32)
    extras = {name: Extra("module", bias.shape, "F32", lambda: bias) for name in ("mine", "theirs")}
    task = Adapter(TASK.modules, extras={"mine.weight": extras["mine"]})
    reference = Adapter(GLOBAL.modules, extras={"theirs.weight": extras["theirs"]})
    assert align(task, reference)[0].extras == {"mine.weight": extras["mine"]}
