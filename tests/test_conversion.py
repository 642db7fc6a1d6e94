from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.adapters import Adapter, open_adapter, write_adapter
from pamctl.adapters.compatibility import share_a_start
from pamctl.conversion import convert
from pamctl.refusal import UsageRefusal
from tests.adapter_cases import Q_PROJ, adapters, child_of, delta, random_adapter, random_factors


@given(adapter=adapters(conv=("mixer.conv",), embedding=("language_model.embed_tokens",)))
def test_without_a_rank_every_module_is_as_it_was(adapter: Adapter) -> None:
    converted = convert(adapter)
    assert converted.adapter.fingerprint == adapter.fingerprint
    assert converted.truncation is None


@given(adapter=adapters(), rank=st.integers(1, 6))
def test_a_smaller_rank_is_the_best_approximation_of_each_delta(adapter: Adapter, rank: int) -> None:
    converted = convert(adapter, rank)
    kept = whole = 0.0
    for module, factors in converted.adapter.modules.items():
        assert converted.adapter.shapes[module] == factors.shape
        assert converted.adapter.shapes[module].scale == factors.scale
        assert factors.rank == min(rank, adapter.shapes[module].rank)
        dense = delta(adapter.modules[module])
        left, singular, right = np.linalg.svd(dense, full_matrices=False)
        best = (left[:, :rank] * singular[:rank]) @ right[:rank]
        # equal errors, not equal matrices: with equal singular values the best is not unique
        np.testing.assert_allclose(
            np.linalg.norm(delta(factors) - dense),
            np.linalg.norm(best - dense),
            atol=1e-4 * (np.linalg.norm(dense) + 1e-30),
        )
        kept, whole = kept + float((singular[:rank] ** 2).sum()), whole + float((singular**2).sum())
    if converted.truncation and whole:
        assert converted.truncation.retained_energy == pytest.approx(kept / whole, abs=1e-6)


def test_a_rank_at_or_above_the_adapters_own_changes_nothing() -> None:
    adapter = random_adapter()
    assert convert(adapter, 4).adapter.fingerprint == convert(adapter, 99).adapter.fingerprint
    assert convert(adapter, 99).adapter.rank == 4


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(UsageRefusal, match="rank is 0"):
        convert(random_adapter(), 0)


def test_written_anew_an_adapter_keeps_its_start_and_truncated_it_has_a_new_one() -> None:
    start = random_adapter(0)
    child = child_of(start, seed=1)
    assert share_a_start([start, convert(child).adapter])
    assert share_a_start([start, convert(convert(child).adapter).adapter])
    assert not share_a_start([start, convert(child, 2).adapter])
    assert not share_a_start([start, convert(convert(child, 2).adapter).adapter])


def test_the_record_says_what_was_converted() -> None:
    adapter = random_adapter(1, tasks=("one", "two"))
    record = convert(adapter, 2).adapter.provenance
    assert record is not None
    assert (record.kind, record.stage, record.tasks) == ("converted", "trained", ("one", "two"))
    assert record.parents[0].fingerprint == adapter.fingerprint
    assert record.parameters["rank"] == 2


def test_an_adapter_without_a_record_is_taken_for_a_trained_one() -> None:
    record = convert(Adapter({Q_PROJ: random_factors(0, 3, 2)})).adapter.provenance
    assert record is not None
    assert (record.kind, record.stage, record.tasks) == ("converted", "trained", ())


@pytest.mark.parametrize(("format", "name"), [("peft", "x"), ("orbax", "x"), ("kohya", "x.safetensors")])
def test_an_adapter_is_written_over_itself_and_into_itself(format: str, name: str, tmp_path: Path) -> None:
    """It is read to the end before anything is replaced."""
    source = tmp_path / name
    write_adapter(random_adapter(rank=4), source, format)
    expected = list(convert(open_adapter(source), rank=2).adapter.modules.values())
    write_adapter(convert(open_adapter(source), rank=2).adapter, source, format, force=True)
    for factors, due in zip(open_adapter(source).modules.values(), expected, strict=True):
        np.testing.assert_array_equal(delta(factors), delta(due))
    if source.is_dir():
        write_adapter(convert(open_adapter(source)).adapter, source / "inner")
        assert open_adapter(source / "inner").parameters == open_adapter(source).parameters
