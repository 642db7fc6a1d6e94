from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter
from pamctl.adapters.extra import Extra
from pamctl.merging import Recipe, merge, plan_merge
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import Q_PROJ, delta, random_adapter, saved

HEAD = "lm_head.weight"
BIAS = f"{Q_PROJ}.lora_bias"


def extra(values: Any, role: Any = "module", dtype: str = "F32") -> Extra:
    array = np.asarray(values, {"F32": np.float32, "F16": np.float16}[dtype])
    return Extra(role, array.shape, dtype, lambda: array)


def carrying(seed: int, name: str = "adapter", **extras: Extra) -> Adapter:
    modules = random_adapter(seed).modules
    named = {
        HEAD if key == "head" else BIAS if key == "bias" else key: value for key, value in extras.items()
    }
    return Adapter(modules, base_model="tiny", name=name, extras=named)


@pytest.mark.parametrize("role", ["module", "embedding", "bias"])
@pytest.mark.parametrize("full_modules", ["refuse", "first", "mean"])
def test_what_only_one_adapter_has_passes_through_and_is_told(role: str, full_modules: Any) -> None:
    plan = plan_merge(
        [carrying(0), carrying(1, "two", head=extra([1, 2], role))], Recipe(full_modules=full_modules)
    )
    np.testing.assert_array_equal(plan.extras[HEAD].read(), [1, 2])
    assert plan.extras[HEAD].role == role
    assert any("only two has" in note and HEAD in note for note in plan.notes)


def test_what_is_equal_everywhere_passes_through_in_its_dtype() -> None:
    adapters = [carrying(seed, head=extra([1, 2], dtype="F16")) for seed in range(3)]
    plan = plan_merge(adapters)
    assert plan.extras[HEAD].dtype == "F16"
    assert plan.extras[HEAD].read().tobytes() == adapters[0].extras[HEAD].read().tobytes()
    assert any("equal in the adapters" in note for note in plan.notes)


@pytest.mark.parametrize(
    "other", [extra([1, 3]), extra([1, 2], dtype="F16"), extra([1, 2, 3]), extra([[1, 2]])]
)
def test_what_differs_is_refused_by_name(other: Extra) -> None:
    with pytest.raises(Refusal) as refusal:
        plan_merge([carrying(0, "one", head=extra([1, 2])), carrying(1, "two", head=other)])
    for word in (HEAD, "one", "two"):
        assert word in refusal.value.what
    assert "--full-modules" in refusal.value.way_on


def test_zeros_of_either_sign_are_not_equal_bit_for_bit() -> None:
    with pytest.raises(Refusal):
        plan_merge([carrying(0, head=extra([0.0])), carrying(1, head=extra([-0.0]))])


def test_the_first_and_the_weighted_mean_can_be_asked_for() -> None:
    adapters = [carrying(9), carrying(0, head=extra([1, 2])), carrying(1, head=extra([3, 6]))]
    first = merge(adapters, full_modules="first")
    mean = merge(adapters, weights=[5, 3, 1], full_modules="mean")
    np.testing.assert_array_equal(first.extras[HEAD].read(), [1, 2])
    np.testing.assert_allclose(mean.extras[HEAD].read(), [1.5, 3], rtol=1e-6)
    assert mean.provenance is not None
    assert mean.provenance.parameters["full_modules"] == "mean"


def test_a_mean_of_different_shapes_is_refused() -> None:
    adapters = [carrying(0, "one", head=extra([1, 2])), carrying(1, "two", head=extra([1, 2, 3]))]
    with pytest.raises(Refusal, match=r"lm_head.weight is \[2\] in one, \[3\] in two"):
        plan_merge(adapters, Recipe(full_modules="mean"))


def test_a_mean_of_half_precision_keeps_the_widest_dtype() -> None:
    half = [carrying(seed, head=extra([seed, 1], dtype="F16")) for seed in range(2)]
    mixed = [half[0], carrying(2, head=extra([4, 1]))]
    assert merge(half, full_modules="mean").extras[HEAD].dtype == "F16"
    assert merge(half, full_modules="mean").extras[HEAD].read().dtype == np.float16
    assert merge(mixed, full_modules="mean").extras[HEAD].dtype == "F32"


@pytest.mark.parametrize("space", ["factor", "delta"])
def test_biases_of_lora_b_are_summed_as_the_deltas_are(space: Any) -> None:
    size = random_adapter().shapes[Q_PROJ].outputs
    one, two = (
        carrying(seed, bias=extra(np.full(size, seed + 1), "lora_bias")) if seed < 2 else carrying(seed)
        for seed in (1, 2)
    )
    merged = merge([one, two], weights=[3, 1], space=space)
    np.testing.assert_allclose(merged.extras[BIAS].read(), np.full(size, 0.75 * 2))
    both = merge([one, carrying(5, bias=extra(np.full(size, 4), "lora_bias"))], weights=[3, 1], space=space)
    np.testing.assert_allclose(both.extras[BIAS].read(), np.full(size, 0.75 * 2 + 0.25 * 4))


def test_a_full_weight_beside_a_delta_for_it_is_refused() -> None:
    replaced = carrying(0, "one", **{f"{Q_PROJ}.weight": extra([[1.0]])})
    only = {module: factors for module, factors in replaced.modules.items() if module != Q_PROJ}
    one = Adapter(only, name="one", extras=replaced.extras)
    with pytest.raises(Refusal, match=f"one replaces {Q_PROJ}.weight whole, two adapts"):
        plan_merge([one, carrying(1, "two")], Recipe(full_modules="first"))


def test_another_word_for_full_modules_is_a_usage_fault() -> None:
    with pytest.raises(UsageRefusal, match="full_modules is 'sum'"):
        plan_merge([carrying(0), carrying(1)], Recipe(full_modules="sum"))  # type: ignore[arg-type]


def test_a_merge_with_extras_is_written_and_read_whole(tmp_path: Any) -> None:
    size = random_adapter().shapes[Q_PROJ].outputs
    one = carrying(0, head=extra([1, 2]), bias=extra(np.ones(size), "lora_bias"))
    merged = merge([one, carrying(1, head=extra([3, 4]))], full_modules="first")
    opened = open_adapter(saved(merged, tmp_path / "merged"))
    assert opened.fingerprint == merged.fingerprint
    np.testing.assert_array_equal(opened.extras[HEAD].read(), [1, 2])
    np.testing.assert_array_equal(opened.extras[BIAS].read(), np.full(size, 0.5))
    for module, factors in opened.modules.items():
        np.testing.assert_allclose(delta(factors), delta(merged.modules[module]), rtol=1e-5)
