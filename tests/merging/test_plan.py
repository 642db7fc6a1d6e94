import json
import math
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors
from pamctl.merging import Recipe, plan_merge
from pamctl.merging.schedule import Schedule
from pamctl.merging.survey import surveyed
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import Q_PROJ, child_of, on_base, random_adapter, random_factors


def test_a_recorded_start_means_factors_even_where_the_error_is_large() -> None:
    parent = random_adapter()
    plan = plan_merge([parent, child_of(parent, seed=1, drift=2.0)])
    assert plan.space == "factor"
    assert "records" in plan.reason
    assert plan.cross_term_error is not None
    assert plan.cross_term_error > 0.01


def test_without_a_record_the_measured_error_decides() -> None:
    parent = random_adapter()
    near = plan_merge([parent, child_of(parent, seed=1, drift=0.01, recorded=False)])
    far = plan_merge([parent, random_adapter(1)])
    assert (near.space, far.space) == ("factor", "delta")
    assert near.cross_term_error is not None
    assert near.cross_term_error <= 0.01
    assert "cross-term error" in near.reason
    assert "no shared start" in far.reason
    assert (near.rank, far.rank) == (4, 8)


def test_factors_that_do_not_fit_mean_delta_and_cannot_be_forced() -> None:
    adapters = [random_adapter(), random_adapter(1, rank=6, name="wide")]
    plan = plan_merge(adapters)
    assert (plan.space, plan.rank, plan.cross_term_error) == ("delta", 10, None)
    assert "has rank 4 in adapter and 6 in wide" in plan.reason
    with pytest.raises(Refusal, match="cannot be merged"):
        plan_merge(adapters, Recipe(space="factor"))


def test_factors_of_unrelated_adapters_are_never_averaged_in_silence() -> None:
    plan = plan_merge([random_adapter(), random_adapter(1)], Recipe(space="factor"))
    assert plan.space == "factor"
    assert any("averaged factors are off by" in note for note in plan.notes)
    assert not plan_merge(
        [random_adapter(), child_of(random_adapter(), seed=1, drift=2.0)], Recipe(space="factor")
    ).notes


def test_modules_that_are_not_everywhere_are_told() -> None:
    plan = plan_merge([random_adapter(), Adapter({Q_PROJ: random_factors(5, 16, 16)})])
    assert plan.space == "delta"
    assert any("3 modules of adapter are not in every adapter" in note for note in plan.notes)


def test_bases_named_differently_are_told() -> None:
    other = Adapter(random_adapter(1).modules, base_model="other")
    (note,) = plan_merge([other, random_adapter()]).notes
    assert note.startswith("adapter is of other and adapter of tiny: ")


@pytest.mark.parametrize("space", ["auto", "factor", "delta"])
def test_an_adapter_that_is_given_twice_is_told(space: Any) -> None:
    one, again, third = random_adapter(name="one"), random_adapter(name="again"), random_adapter(1)
    twice = plan_merge([one, again], Recipe(space=space))
    assert twice.notes == ("again is equal to one: the same adapter counts twice",)
    assert plan_merge([one, third, one]).notes == ("one is equal to one: the same adapter counts twice",)
    assert (twice.reason == "the adapters are equal") is (space == "auto")
    assert plan_merge([one, third]).notes == ()


def test_the_error_is_that_of_dense_arithmetic_over_all_modules() -> None:
    adapters = [random_adapter(), random_adapter(1, scale=2.0)]
    wrong = right = 0.0
    for module in adapters[0].modules:
        folded = [adapter.modules[module].folded() for adapter in adapters]
        mean = sum(each.b.astype(np.float64) @ each.a for each in folded) / 2
        product = sum(each.b.astype(np.float64) for each in folded) / 2 @ sum(each.a for each in folded) / 2
        wrong, right = wrong + np.sum((mean - product) ** 2), right + np.sum(mean**2)
    relation = surveyed(adapters, (0.5, 0.5), Schedule(1, 1 << 30), relate=True)
    assert relation is not None
    assert relation.cross_term_error == pytest.approx(math.sqrt(wrong / right), rel=1e-4)


def test_deltas_that_cancel_leave_a_finite_plan() -> None:
    adapter = random_adapter()
    opposite = Adapter({m: LoraFactors(f.a, -f.b) for m, f in adapter.modules.items()})
    flipped = Adapter({m: LoraFactors(-f.a, f.b) for m, f in adapter.modules.items()})
    for other in (opposite, flipped):
        json.dumps(plan_merge([adapter, other]).to_json(), allow_nan=False)


@pytest.mark.parametrize("rank", [3, 8, 100])
def test_the_rank_of_a_delta_is_at_most_the_one_asked_for_and_the_sum(rank: int) -> None:
    plan = plan_merge([random_adapter(), random_adapter(1)], Recipe(space="delta", rank=rank))
    assert plan.rank == min(rank, 8)
    assert plan.compressed


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "best"}, "method is 'best'"),
        ({"space": "core"}, "space is 'core'"),
        ({"rank": 0}, "rank is 0"),
        ({"space": "factor", "rank": 2}, "merged factors have rank 4, not 2"),
        ({"weights": (1.0,)}, "1 weights for 2 adapters"),
    ],
)
def test_an_option_that_does_not_fit_is_a_usage_error(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageRefusal, match=told):
        plan_merge([random_adapter(), random_adapter(1)], Recipe(**options))


def test_one_adapter_is_a_usage_error() -> None:
    with pytest.raises(UsageRefusal, match="1 adapter to merge"):
        plan_merge([random_adapter()])


def test_different_bases_and_no_overlap_are_refused() -> None:
    with pytest.raises(Refusal, match="belongs to"):
        plan_merge([random_adapter(base=on_base("aa")), random_adapter(1, base=on_base("bb"))])
    with pytest.raises(Refusal, match="no module in common"):
        plan_merge([random_adapter(), Adapter({"other": random_factors(0, 16, 16)})])


def test_the_coverage_tells_of_each_adapter_what_is_used_and_what_every_one_has() -> None:
    plan = plan_merge([random_adapter(), Adapter({Q_PROJ: random_factors(5, 16, 16)}, name="one")])
    assert plan.to_json()["coverage"] == [
        {"name": "adapter", "modules": 4, "used": 4, "in_every_adapter": 1, "covered_percent": 25.0},
        {"name": "one", "modules": 1, "used": 1, "in_every_adapter": 1, "covered_percent": 100.0},
    ]


def test_what_will_be_written_has_its_scales_folded_in() -> None:
    plan = plan_merge([random_adapter(scale=2.0), random_adapter(1, scale=0.5)])
    assert {shape.scale for shape in plan.shapes.values()} == {1.0}
