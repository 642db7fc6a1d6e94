import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.adapters import Adapter, ComputedModules, LoraFactors, Parent, open_adapter
from pamctl.adapters.factors import ModuleShape
from pamctl.merging import Recipe, Rule, execute, merge, plan_merge
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import Q_PROJ, SIZES, child_of, delta, on_base, random_adapter, random_factors, saved

SCALES = [0.25, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_an_adapter_merged_with_itself_is_itself_to_the_byte(copies: int, tmp_path: Path) -> None:
    adapter = open_adapter(saved(random_adapter(), tmp_path / "w"))
    merged = saved(merge([adapter] * copies), tmp_path / "merged")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (merged / name).read_bytes() == (tmp_path / "w" / name).read_bytes()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("space", ["factor", "delta"])
def test_copies_of_one_adapter_keep_its_delta_at_any_scale(scale: float, space: str) -> None:
    adapter = random_adapter(scale=scale)
    merged = merge([adapter, adapter, adapter], space=space)  # type: ignore[arg-type]
    for module, factors in merged.modules.items():
        np.testing.assert_allclose(delta(factors), delta(adapter.modules[module]), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    scales=st.lists(st.sampled_from(SCALES), min_size=4, max_size=4),
    weights=st.lists(st.floats(0.1, 3), min_size=4, max_size=4),
)
def test_the_delta_of_a_delta_merge_is_the_mean_of_the_deltas(
    ranks: list[int], scales: list[float], weights: list[float]
) -> None:
    adapters = [random_adapter(i, rank=rank, scale=scales[i]) for i, rank in enumerate(ranks)]
    weights = weights[: len(ranks)]
    merged = merge(adapters, weights=weights, space="delta")
    for module, factors in merged.modules.items():
        mean = sum(w * delta(each.modules[module]) for w, each in zip(weights, adapters, strict=True)) / sum(
            weights
        )
        np.testing.assert_allclose(delta(factors), mean, rtol=1e-4, atol=1e-4)


def test_the_order_of_adapters_does_not_change_the_delta() -> None:
    adapters = [random_adapter(0), random_adapter(1, rank=6), random_adapter(2, scale=2.0)]
    one = merge(adapters, weights=[1, 2, 3])
    two = merge(adapters[::-1], weights=[3, 2, 1])
    for module in one.modules:
        np.testing.assert_allclose(delta(one.modules[module]), delta(two.modules[module]), atol=1e-4)


def test_a_module_that_one_adapter_lacks_counts_as_zero_there() -> None:
    only = Adapter({Q_PROJ: random_factors(5, 16, 16)})
    adapter = random_adapter()
    merged = merge([adapter, only])
    assert list(merged.modules) == sorted(SIZES)
    other = "multi_modal_projector.linear"
    np.testing.assert_allclose(delta(merged.modules[other]), 0.5 * delta(adapter.modules[other]), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 8, 20])
def test_a_compressed_merge_is_the_best_of_its_rank_and_reports_what_it_kept(rank: int) -> None:
    plan = plan_merge([random_adapter(), random_adapter(1)], Recipe(space="delta", rank=rank))
    merged = execute(plan)
    kept = total = 0.0
    for module, factors in merged.adapter.modules.items():
        mean = sum(delta(adapter.modules[module]) for adapter in plan.adapters) / 2
        left, singular, right = np.linalg.svd(mean)
        size = min(rank, 8)
        np.testing.assert_allclose(
            delta(factors), (left[:, :size] * singular[:size]) @ right[:size], atol=1e-4
        )
        kept, total = kept + float((singular[:size] ** 2).sum()), total + float((singular**2).sum())
    assert (merged.report.retained_energy or 1.0) == pytest.approx(kept / total)


def test_a_factor_merge_is_the_mean_of_each_factor() -> None:
    parent = random_adapter()
    child = child_of(parent, seed=1)
    for module, factors in merge([parent, child]).modules.items():
        np.testing.assert_array_equal(factors.a, (parent.modules[module].a + child.modules[module].a) / 2)
        np.testing.assert_array_equal(factors.b, (parent.modules[module].b + child.modules[module].b) / 2)


def test_the_record_names_parents_tasks_base_and_parameters() -> None:
    first = random_adapter(tasks=("a", "b"), base=on_base("aa"))
    second = child_of(first, seed=1, tasks=("b", "c"))
    record = merge([first, second], weights=[3, 1]).provenance
    assert record is not None
    assert (record.kind, record.stage, record.tasks, record.method) == (
        "merged",
        "merged",
        ("a", "b", "c"),
        "average",
    )
    assert record.parents == (Parent(first.fingerprint), Parent(second.fingerprint))
    assert record.base == on_base("aa")
    assert record.parameters == {"weights": [0.75, 0.25], "space": "factor"}


def test_a_sequence_of_merges_stays_in_factor_space() -> None:
    merged = random_adapter(tasks=("t0",))
    for task in range(1, 4):
        merged = merge([merged, child_of(merged, seed=task, drift=1.0, tasks=(f"t{task}",))])
    assert merged.rank == 4
    assert merged.provenance is not None
    assert merged.provenance.parameters["space"] == "factor"


def test_the_same_merge_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [
        saved(merge([random_adapter(), random_adapter(1)], space="delta", rank=3), tmp_path / name)
        for name in ("one", "two")
    ]
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two


def test_memory_stays_that_of_a_module_however_many_there_are(tmp_path: Path) -> None:
    shape = ModuleShape(8, 512, 512, "F32")
    factors = random_factors(0, 512, 512, 8)
    modules = {f"layers.{i}": shape for i in range(100)}
    adapters = [
        Adapter(ComputedModules(modules, lambda _: LoraFactors(factors.a, factors.b))) for _ in range(2)
    ]
    tracemalloc.start()
    try:
        saved(merge(adapters), tmp_path / "merged")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 4 * shape.parameters
    assert (tmp_path / "merged" / "adapter_model.safetensors").stat().st_size > 100 * 4 * shape.parameters


def test_rules_for_all_modules_are_recorded_so_that_they_can_be_done_again() -> None:
    rules = (Rule(("vision_tower.*",), method="ties", rank=2), Rule(("*",), method="linear"))
    plan = plan_merge([random_adapter(), random_adapter(1)], Recipe(space="delta", rules=rules))
    again = plan_merge([random_adapter(), random_adapter(1)], plan.recipe)
    assert again.recipe == plan.recipe
    assert again.shapes == plan.shapes


def test_clamping_is_that_of_singular_vectors_at_any_rank() -> None:
    adapters = [random_adapter(), random_adapter(1)]
    merged = merge(adapters, "svd", rank=8, parameters={"clamp": 0.9})
    for module, factors in merged.modules.items():
        left, singular, right = np.linalg.svd(sum(delta(adapter.modules[module]) for adapter in adapters))
        count = min(8, len(singular))
        b, a = left[:, :count] * singular[:count], right[:count]
        signs = np.where(b[np.abs(b).argmax(0), np.arange(count)] < 0, -1, 1)
        b, a = b * signs, a * signs[:, None]
        limit = np.quantile(np.concatenate([a.ravel(), b.ravel()]), 0.9)
        expected = np.clip(b, -limit, limit) @ np.clip(a, -limit, limit)
        np.testing.assert_allclose(delta(factors), expected, atol=1e-3 * np.abs(expected).max())


def test_numbers_beyond_float32_are_refused(tmp_path: Path) -> None:
    adapters = [random_adapter(), random_adapter(1)]
    merged = merge(adapters, "task-arithmetic", weights=(3e38, 3e38), rank=2)
    with pytest.raises(Refusal, match="NaN or Inf"):
        saved(merged, tmp_path / "out")
    with pytest.raises(UsageRefusal, match="ties cannot reckon with the weights 3e"):
        plan_merge(adapters, Recipe("ties", weights=(3e38, 3e38)))


@pytest.mark.parametrize("weight", [1e300, float("inf"), float("nan"), -1e39])
def test_weights_beyond_float32_are_a_usage_fault(weight: float) -> None:
    with pytest.raises(UsageRefusal, match="not all finite"):
        plan_merge([random_adapter(), random_adapter(1)], Recipe("linear", weights=(weight, 1.0)))


def test_auto_takes_deltas_where_another_rank_is_asked_for() -> None:
    parent = random_adapter()
    child = child_of(parent, seed=1)
    assert plan_merge([parent, child], Recipe(rank=2)).space == "delta"
    assert plan_merge([parent, child], Recipe(energy=0.9)).space == "delta"
    assert plan_merge([parent, child], Recipe(rank=4)).space == "factor"
    assert plan_merge([parent, child], Recipe(rank="max")).space == "factor"
