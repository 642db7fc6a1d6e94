import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement_reference import bits, merged, tied_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES
from pamctl_kernels import merge_agreeing
from pamctl_kernels.device import agreement
from pamctl_kernels.host import blocks

BACK_ENDS = [np.asarray, jnp.asarray]
RULES = list(
    itertools.product(("total", "weighted", "frequency"), (1, 0, -1), ("count", "weight", "none", "max"))
)


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ties_worked_by_hand(array: Any, dtype: Any) -> None:
    """Trimmed at 1: [4 -2 0; 1 0 3] and [2 4 -1; -1 0 5]. Sums 6 2 -1; 0 0 8: signs + + -; tie, none, +."""
    a = array(np.array([[4, -2, 0.5], [1, -0.5, 3]], dtype))
    b = array(np.array([[2, 4, -1], [-1, 0, 5]], dtype))
    count = merge_agreeing([a, b], thresholds=[1, 1])
    assert count.tolist() == [[3, 4, -1], [1, 0, 4]]
    assert count.dtype == dtype
    assert merge_agreeing([a, b], thresholds=[1, 1], on_tie=-1).tolist() == [[3, 4, -1], [-1, 0, 4]]
    assert merge_agreeing([a, b], thresholds=[1, 1], on_tie=0).tolist() == [[3, 4, -1], [0, 0, 4]]
    assert merge_agreeing([a, b], thresholds=[1, 1], divide="none").tolist() == [[6, 4, -1], [1, 0, 8]]
    assert merge_agreeing([a, b], thresholds=[1, 1], divide="max").tolist() == [[4, 4, -1], [1, 0, 5]]
    # Weights 3 and 1: elected + - -; + 0 +, and (12 + 2) / 4, -6 / 3, -1 / 1; 3 / 3, 0, (9 + 5) / 4.
    weighted = merge_agreeing([a, b], [3, 1], [1, 1], elect="weighted", divide="weight")
    assert weighted.tolist() == [[3.5, -2, -1], [1, 0, 3.5]]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES), count=st.integers(1, 4))
def test_both_back_ends_follow_the_definition(seed: int, dtype: Any, count: int) -> None:
    random = np.random.default_rng(seed)
    elect, on_tie, divide = RULES[seed % len(RULES)]
    xs = [tied_weights(random, (6, 7), dtype) for _ in range(count)]
    weights = [float(random.choice([0, 1, -0.5, random.standard_normal()])) for _ in xs]
    thresholds = [None if random.random() < 0.3 else np.asarray(1, dtype)[()] for _ in xs]
    expected = bits(merged(xs, weights, thresholds, elect, on_tie, divide))
    for array in BACK_ENDS:
        on: Any = [array(x) for x in xs]
        rule: Any = {"elect": elect, "on_tie": on_tie, "divide": divide}
        assert bits(merge_agreeing(on, weights, thresholds, **rule)) == expected


@pytest.mark.parametrize(("elect", "on_tie", "divide"), RULES)
def test_every_rule_in_host_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, elect: Any, on_tie: Any, divide: Any
) -> None:
    random = np.random.default_rng(5)
    xs = [tied_weights(random, (5, 8), np.dtype(np.float32)) for _ in range(3)]
    before = [bits(x) for x in xs]
    monkeypatch.setattr(blocks, "BLOCK", 7)
    found = merge_agreeing(xs, [1, 0.7, -0.7], [None, 1, 0.37], elect=elect, on_tie=on_tie, divide=divide)
    assert bits(found) == bits(merged(xs, [1, 0.7, -0.7], [None, 1, np.float32(0.37)], elect, on_tie, divide))
    assert [bits(x) for x in xs] == before


def test_two_threads_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    xs = list(np.random.default_rng(6).standard_normal((2, 301, 7), np.float32))
    alone = merge_agreeing(xs, thresholds=[0.5, 1])
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(blocks, "_LARGE", 1)
    assert bits(merge_agreeing(xs, thresholds=[0.5, 1])) == bits(alone)
    with pytest.raises(ValueError, match="the array holds NaN"):
        merge_agreeing([xs[0], np.full_like(xs[1], np.nan)])


@pytest.mark.parametrize("array", BACK_ENDS)
def test_copies_of_one_array_merge_to_it(array: Any) -> None:
    x = array(np.random.default_rng(7).standard_normal((4, 5), np.float32))
    for elect in ("total", "weighted", "frequency"):
        assert bits(merge_agreeing([x, x], elect=elect, divide="count")) == bits(x)  # type: ignore[arg-type]
        assert bits(merge_agreeing([-x, -x], elect=elect, divide="weight")) == bits(-x)  # type: ignore[arg-type]


@pytest.mark.parametrize("array", BACK_ENDS)
def test_trees_and_thresholds_of_trees(array: Any) -> None:
    a = {"p": array(np.float32([1, -3])), "q": [array(np.float16([[2, 4]]))]}
    b = {"p": array(np.float32([1, 4])), "q": [array(np.float16([[-1, 4]]))]}
    result = merge_agreeing([a, b], thresholds=[{"p": 2, "q": [0]}, None])
    assert result["p"].tolist() == [1, 4]
    assert result["q"][0].tolist() == [[2, 4]]
    assert result["q"][0].dtype == np.float16


@pytest.mark.parametrize("array", BACK_ENDS)
def test_infinities_that_cancel_tie_and_infinite_ones_stay(array: Any) -> None:
    a, b = array(np.float32([np.inf, np.inf, 1])), array(np.float32([-np.inf, 1, 2]))
    assert merge_agreeing([a, b]).tolist() == [np.inf, np.inf, 1.5]
    assert merge_agreeing([a, b], on_tie=-1).tolist() == [-np.inf, np.inf, 1.5]
    assert merge_agreeing([a, b], on_tie=0).tolist() == [0, np.inf, 1.5]


@pytest.mark.parametrize("threshold", [None, 2])
@pytest.mark.parametrize("elect", ["total", "weighted", "frequency"])
def test_nan_is_refused_on_the_host_and_stays_on_a_device(elect: Any, threshold: Any) -> None:
    xs = [np.float32([1, np.nan]), np.float32([1, 5])]
    with pytest.raises(ValueError, match="the array holds NaN"):
        merge_agreeing(xs, [0, 1], [threshold] * 2, elect=elect)
    result = merge_agreeing([jnp.asarray(x) for x in xs], [0, 1], [threshold] * 2, elect=elect)
    assert jnp.isnan(result).tolist() == [False, True]
    with pytest.raises(ValueError, match="merged weight of NaN"):
        merge_agreeing([np.float32([3])], [np.inf], divide="weight")


@pytest.mark.parametrize("array", BACK_ENDS)
def test_what_does_not_fit_is_refused(array: Any) -> None:
    x = array(np.ones(3, np.float32))
    wrong: Any
    for wrong, message in [
        ({"elect": "mean"}, "elect is 'mean'"),
        ({"on_tie": 2}, "on_tie is 2"),
        ({"divide": "all"}, "divide is 'all'"),
        ({"weights": [1, 2]}, "1 to merge but 2 weights"),
        ({"thresholds": []}, "1 to merge but 0 thresholds"),
    ]:
        with pytest.raises(ValueError, match=message):
            merge_agreeing([x], **wrong)
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        merge_agreeing([x, x[:2]])


def test_other_weights_and_thresholds_compile_nothing_and_move_nothing_to_the_host() -> None:
    x = jnp.arange(4.0)
    merge_agreeing([x, x], [0.5, 0.5], [1, 2])
    compiled = agreement._merge_agreeing._cache_size()
    with jax.transfer_guard("disallow"):
        result = merge_agreeing([x, x], [0.25, 0.75], [2, None])
    assert agreement._merge_agreeing._cache_size() == compiled
    assert result.tolist() == [0, 0.75, 1, 1.5]


def test_the_device_makes_nothing_as_large_as_its_inputs_but_the_result() -> None:
    x = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    program = jax.jit(lambda a, b: merge_agreeing([a, b], [0.5, 0.5], [1, 1])).lower(x, x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 10_000
