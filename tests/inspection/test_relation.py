import json

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors
from pamctl.inspection import delta_signs, relate
from pamctl.merging.schedule import Schedule
from pamctl.merging.survey import surveyed
from pamctl.refusal import Refusal
from tests.adapter_cases import Q_PROJ, child_of, delta, on_base, random_adapter, random_factors


def flat(adapter: Adapter) -> np.ndarray:
    return np.concatenate([delta(factors).ravel() for factors in adapter.modules.values()])


def test_two_adapters_are_related_by_their_deltas() -> None:
    one, two = random_adapter(), random_adapter(1, scale=2.0)
    relation = relate(one, two)
    x, y = flat(one), flat(two)
    assert relation["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert relation["norm_ratio"] == pytest.approx(np.linalg.norm(y) / np.linalg.norm(x))
    assert relation["share_a_start"] is False
    assert 40 < relation["differ_percent"] < 60
    assert relation["cross_term_error_percent"] > 1
    json.dumps(relation, allow_nan=False)


def test_an_adapter_and_itself() -> None:
    relation = relate(random_adapter(), random_adapter())
    assert relation["cosine"] == pytest.approx(1)
    assert (relation["differ_percent"], relation["cross_term_error_percent"]) == (0, 0)
    assert relation["share_a_start"] is True


def test_a_child_shares_its_start() -> None:
    parent = random_adapter()
    assert relate(parent, child_of(parent, seed=1))["share_a_start"] is True


def test_factors_that_do_not_fit_leave_their_figures_out() -> None:
    only = Adapter({Q_PROJ: random_factors(5, 16, 16, rank=3)})
    relation = relate(random_adapter(), only)
    assert relation["differ_percent"] is None
    assert relation["cross_term_error_percent"] is None
    assert len(relation["only_in_first"]) == 3
    assert [module["module"] for module in relation["modules"]] == [Q_PROJ]


def test_different_bases_are_refused() -> None:
    with pytest.raises(Refusal, match="belongs to"):
        relate(random_adapter(base=on_base("aa")), random_adapter(base=on_base("bb")))


def changed(adapter: Adapter, b: float = 1.0, a: float = 1.0) -> Adapter:
    return Adapter(
        {
            name: LoraFactors(f.a * np.float32(a), f.b * np.float32(b), f.scale)
            for name, f in adapter.modules.items()
        }
    )


def signs(relation: dict) -> tuple[float, float, float]:
    record = relation["delta_signs"]
    return record["conflict_percent"], record["gaussian_percent"], record["excess_percent"]


def test_equal_deltas_share_everything_whatever_their_factors() -> None:
    relation = relate(random_adapter(), changed(random_adapter(), b=0.5, a=4))
    assert relation["cosine"] == pytest.approx(1)
    assert relation["norm_ratio"] == pytest.approx(2)
    assert (relation["overlap_left"], relation["overlap_right"]) == pytest.approx((1, 1))
    assert signs(relation) == (0, 0, 0)
    assert relation["cross_term_error_percent"] > 1


def test_negated_deltas_conflict_everywhere_as_their_cosine_says() -> None:
    relation = relate(random_adapter(), changed(random_adapter(), b=-1))
    assert relation["cosine"] == pytest.approx(-1)
    assert (relation["overlap_left"], relation["overlap_right"]) == pytest.approx((1, 1))
    assert signs(relation) == (100, 100, 0)


def test_a_negative_scale_negates_too() -> None:
    adapter = random_adapter()
    negated = Adapter({name: LoraFactors(f.a, f.b, -3.0) for name, f in adapter.modules.items()})
    assert signs(relate(adapter, negated)) == (100, 100, 0)


def test_deltas_in_orthogonal_spaces_overlap_nowhere() -> None:
    eye = np.eye(16, dtype=np.float32)
    one, two = (Adapter({Q_PROJ: LoraFactors(eye[rows], eye[:, rows])}) for rows in (slice(4), slice(4, 8)))
    relation = relate(one, two)
    assert (relation["overlap_left"], relation["overlap_right"], relation["cosine"]) == (0, 0, 0)
    assert signs(relation) == (None, None, None)
    half = Adapter({Q_PROJ: LoraFactors(eye[:4], eye[:, 2:6])})
    relation = relate(one, half)
    assert (relation["overlap_left"], relation["overlap_right"]) == pytest.approx((0.5, 1))


def test_overlap_is_that_of_the_dense_deltas_at_different_ranks() -> None:
    one, two = random_factors(0, 16, 24, rank=5), random_factors(1, 16, 24, rank=3, scale=0.5)
    u1, _, v1 = np.linalg.svd(delta(one), full_matrices=False)
    u2, _, v2 = np.linalg.svd(delta(two), full_matrices=False)
    relation = relate(Adapter({Q_PROJ: one}), Adapter({Q_PROJ: two}))
    assert relation["overlap_left"] == pytest.approx(np.sum((u1[:, :5].T @ u2[:, :3]) ** 2) / 3)
    assert relation["overlap_right"] == pytest.approx(np.sum((v1[:5] @ v2[:3].T) ** 2) / 3)
    assert relation["cross_term_error_percent"] is None
    assert "rank" in relation["factor_mismatch"]


def test_a_component_of_zeros_adds_no_direction() -> None:
    factors = random_factors(0, 16, 16)
    padded = LoraFactors(
        np.pad(factors.a, ((0, 2), (0, 0))), np.pad(factors.b, ((0, 0), (0, 2)), constant_values=1)
    )
    relation = relate(Adapter({Q_PROJ: factors}), Adapter({Q_PROJ: padded}))
    assert (relation["overlap_left"], relation["overlap_right"]) == pytest.approx((1, 1))


def test_zero_deltas_leave_figures_undefined() -> None:
    adapter = random_adapter()
    relation = relate(adapter, changed(adapter, b=0))
    for figure in ("cosine", "overlap_left", "overlap_right"):
        assert relation[figure] is None
    assert relation["norm_ratio"] == 0
    assert relate(changed(adapter, b=0), adapter)["norm_ratio"] is None
    assert signs(relation) == (None, None, None)
    json.dumps(relation, allow_nan=False)


def test_cross_term_error_is_that_of_the_merge_plan() -> None:
    first = random_adapter(scale=0.5)
    for second in (random_adapter(1, scale=2.0), child_of(first, seed=1, drift=1e-3)):
        relation = surveyed((first, second), (0.5, 0.5), Schedule(1, 1 << 30), relate=True)
        assert relation is not None
        assert relation.cross_term_error is not None
        expected = 100 * relation.cross_term_error
        assert relate(first, second)["cross_term_error_percent"] == pytest.approx(expected, abs=1e-4)


def test_signs_of_random_deltas_are_those_of_the_dense_ones() -> None:
    one, two = random_adapter(), child_of(random_adapter(), seed=1, drift=0.7)
    relation = relate(one, two)
    share = 100 * np.mean(np.sign(flat(one)) != np.sign(flat(two)))
    assert relation["delta_signs"]["method"] == "exact"
    assert signs(relation)[0] == pytest.approx(share, abs=1e-4)
    assert signs(relation)[2] == pytest.approx(signs(relation)[0] - signs(relation)[1], abs=2e-4)
    assert abs(signs(relation)[2]) < 8


def test_large_adapters_are_sampled_the_same_whichever_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"inputs": 256, "outputs": 512, "rank": 8}
    one, other = random_factors(0, **shape), random_factors(1, **shape)
    two = LoraFactors(one.a + other.a, one.b)
    first, second = Adapter({Q_PROJ: one}), Adapter({Q_PROJ: two})
    exact = relate(first, second)
    monkeypatch.setattr("pamctl.inspection.relation.MOST_EXACT", 1000)
    sampled, back = relate(first, second), relate(second, first)
    record = sampled["delta_signs"]
    assert (record["method"], record["weights_a_module"]) == ("sample", delta_signs.SAMPLED)
    assert record == back["delta_signs"] == relate(first, second)["delta_signs"]
    assert 0.5 < record["standard_error_percent"] < 0.9
    assert (
        abs(record["conflict_percent"] - exact["delta_signs"]["conflict_percent"])
        < 4 * record["standard_error_percent"]
    )
    assert record["gaussian_percent"] == pytest.approx(25, abs=2)
    assert exact["delta_signs"]["standard_error_percent"] == 0


def test_modules_only_one_adapter_has_are_named_and_left_out() -> None:
    one = Adapter({Q_PROJ: random_factors(0, 16, 16), "lm_head": random_factors(1, 16, 32)})
    two = Adapter({Q_PROJ: random_factors(0, 16, 16), "embed": random_factors(2, 16, 32)})
    relation = relate(one, two)
    assert relation["cosine"] == pytest.approx(1)
    assert (relation["only_in_first"], relation["only_in_second"]) == (["lm_head"], ["embed"])
    assert two.fingerprint == relation["fingerprint"]


def test_flattened_ids_are_matched_to_dotted_ones() -> None:
    one = Adapter(
        {"unet_block.0.to_q": random_factors(0, 16, 16), "unet_block.1.to_q": random_factors(1, 16, 16)}
    )
    two = Adapter({name.replace(".", "_"): factors for name, factors in one.modules.items()})
    relation = relate(one, two)
    assert relation["cosine"] == pytest.approx(1)
    assert [module["module"] for module in relation["modules"]] == list(one.shapes)
    assert relation["only_in_first"] == relation["only_in_second"] == []
    assert relation["share_a_start"] is True
