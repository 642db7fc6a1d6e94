from pathlib import Path

import numpy as np
import pytest

from pamctl.adapters import Adapter, ComputedModules, LoraFactors, open_adapter, save_adapter, write_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.refusal import Refusal
from tests.adapter_cases import Q_PROJ, SIZES, random_adapter, random_factors, saved


def test_factors_that_do_not_fit_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="are not"):
        LoraFactors(np.zeros((4, 8), np.float32), np.zeros((8, 3), np.float32))


def test_modules_come_in_sorted_order_whatever_order_they_are_given_in() -> None:
    modules = dict(random_adapter().modules)
    backwards = Adapter(dict(reversed(list(modules.items()))))
    assert list(backwards.modules) == sorted(SIZES)
    assert backwards.fingerprint == Adapter(modules).fingerprint


def test_fingerprint_does_not_depend_on_where_the_scale_sits() -> None:
    plain = random_factors(0, 16, 16, scale=0.3)
    folded = Adapter({Q_PROJ: plain.folded()})
    assert Adapter({Q_PROJ: plain}).fingerprint == folded.fingerprint


def test_a_fold_beyond_float32_is_refused_when_it_is_written(tmp_path: Path) -> None:
    large = Adapter(
        {Q_PROJ: LoraFactors(np.ones((1, 2), np.float32), np.full((2, 1), 1e38, np.float32), 10.0)}
    )
    with pytest.raises(Refusal, match="NaN or Inf"):
        write_adapter(large, tmp_path / "out")


def test_fingerprint_does_not_depend_on_zero_padding_of_the_rank() -> None:
    factors = random_factors(0, 16, 16)
    padded = LoraFactors(np.pad(factors.a, ((0, 3), (0, 0))), np.pad(factors.b, ((0, 0), (0, 3))))
    assert Adapter({Q_PROJ: factors}).fingerprint == Adapter({Q_PROJ: padded}).fingerprint


def test_fingerprint_tells_apart_one_bit_one_name_and_one_fresh_component() -> None:
    factors = random_factors(0, 16, 16)
    nudged = factors.a.copy()
    nudged[2, 3] = np.nextafter(nudged[2, 3], np.float32(9))
    fresh = LoraFactors(
        np.pad(factors.a, ((0, 1), (0, 0)), constant_values=1), np.pad(factors.b, ((0, 0), (0, 1)))
    )
    variants = [
        Adapter({Q_PROJ: factors}),
        Adapter({Q_PROJ: LoraFactors(nudged, factors.b)}),
        Adapter({"other": factors}),
        Adapter({Q_PROJ: fresh}),
    ]
    assert len({adapter.fingerprint for adapter in variants}) == 4


def test_computed_modules_compute_at_each_access_and_know_their_shapes_without() -> None:
    calls: list[str] = []

    def compute(module: str) -> LoraFactors:
        calls.append(module)
        return random_factors(0, 16, 16)

    adapter = Adapter(ComputedModules({Q_PROJ: random_factors(0, 16, 16).shape}, compute))
    assert (adapter.rank, adapter.parameters, calls) == (4, 4 * 32, [])
    assert adapter.modules[Q_PROJ].rank == adapter.modules[Q_PROJ].rank == 4
    assert calls == [Q_PROJ] * 2
    with pytest.raises(KeyError):
        adapter.modules["other"]


def test_saving_and_opening_gives_the_same_factors_bit_for_bit(tmp_path) -> None:
    adapter = random_adapter()
    opened = open_adapter(saved(adapter, tmp_path / "a"))
    assert opened.fingerprint == adapter.fingerprint
    for module, factors in adapter.modules.items():
        np.testing.assert_array_equal(opened.modules[module].a, factors.a)
        np.testing.assert_array_equal(opened.modules[module].b, factors.b)
        assert opened.modules[module].scale == 1


def test_equal_adapters_give_equal_bytes(tmp_path) -> None:
    one = saved(random_adapter(tasks=("first",)), tmp_path / "one")
    two = saved(open_adapter(one), tmp_path / "two")
    assert {file.name: file.read_bytes() for file in one.iterdir()} == {
        file.name: file.read_bytes() for file in two.iterdir()
    }


def test_an_adapter_without_a_record_is_saved_without_one(tmp_path) -> None:
    save_adapter(random_adapter(), tmp_path)
    assert open_adapter(tmp_path).provenance is None


def test_weights_that_are_not_the_recorded_ones_are_refused_whenever_the_fingerprint_is_asked_for(
    tmp_path: Path,
) -> None:
    folder = saved(random_adapter(tasks=("one",)), tmp_path / "a")
    assert open_adapter(folder).fingerprint == random_adapter().fingerprint
    other = saved(random_adapter(1), tmp_path / "b")
    (folder / "adapter_model.safetensors").write_bytes((other / "adapter_model.safetensors").read_bytes())
    changed = open_adapter(folder)
    for _ in range(2):
        with pytest.raises(Refusal, match="not those that its record describes") as refusal:
            _ = changed.fingerprint
    assert "pamctl.json" in refusal.value.way_on


def test_what_is_written_in_a_narrower_dtype_has_the_fingerprint_of_what_is_read_again(
    tmp_path: Path,
) -> None:
    adapter = random_adapter(scale=0.3, tasks=("one",))
    write_adapter(adapter, tmp_path / "half", options=WriteOptions("F16"))
    opened = open_adapter(tmp_path / "half")
    assert opened.provenance is not None
    assert opened.provenance.fingerprint == opened.fingerprint != adapter.fingerprint
