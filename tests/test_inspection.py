import json

import numpy as np
import pytest

from pamctl.adapters import Adapter
from pamctl.inspection import describe, relate
from pamctl.refusal import Refusal
from tests.adapter_cases import Q_PROJ, SIZES, child_of, delta, on_base, random_adapter, random_factors


def flat(adapter: Adapter) -> np.ndarray:
    return np.concatenate([delta(factors).ravel() for factors in adapter.modules.values()])


def test_an_adapter_is_described_by_its_deltas() -> None:
    adapter = random_adapter(scale=0.5, tasks=("first",), base=on_base("aa"))
    contents = describe(adapter)
    assert contents["norm"] == pytest.approx(float(np.linalg.norm(flat(adapter))))
    assert contents["base"] == {"name": "tiny", "fingerprint": "aa"}
    assert contents["provenance"]["tasks"] == ("first",)
    assert (contents["ranks"], contents["scales"], contents["dtypes"]) == ([4], [0.5], ["F32"])
    assert contents["bytes"] == 4 * contents["parameters"] == 4 * 4 * sum(map(sum, SIZES.values()))
    assert [(group["tower"], group["kind"], group["modules"]) for group in contents["groups"]] == [
        ("language_model", "gate_proj", 1),
        ("language_model", "q_proj", 1),
        ("multi_modal_projector", "linear", 1),
        ("vision_tower", "fc1", 1),
    ]
    json.dumps(contents, allow_nan=False)


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
