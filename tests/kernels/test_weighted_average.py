from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, random_weights
from pamctl_kernels import device, host, weighted_average

BACK_ENDS = [np.asarray, jnp.asarray]


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_worked_by_hand(array: Any, dtype: np.dtype) -> None:
    a, b = array(np.array([1, -2, 0], dtype)), array(np.array([3, 2, -0.0], dtype))
    average = weighted_average([a, b], [0.5, 0.5])
    assert average.tolist() == [2, 0, 0]
    assert average.dtype == dtype
    assert weighted_average([a, b], [1, -1]).tolist() == [-2, -4, 0]
    assert weighted_average([a], [0.25]).tolist() == [0.25, -0.5, 0]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES), count=st.integers(1, 4))
def test_both_back_ends_agree_bit_for_bit(seed: int, dtype: np.dtype, count: int) -> None:
    """Normal values: no product and sum is contracted, no order changed, every rounding the same."""
    random = np.random.default_rng(seed)
    xs = [random.standard_normal((6, 40), np.float32).astype(dtype) for _ in range(count)]
    weights = random.standard_normal(count).astype(np.float32)
    expected = xs[0].astype(np.float32) * weights[0]
    for x, weight in zip(xs[1:], weights[1:], strict=True):
        expected += x.astype(np.float32) * weight
    constant_weights = jax.jit(lambda xs: weighted_average(xs, weights.tolist()))
    averages = [weighted_average([array(x) for x in xs], weights.tolist()) for array in BACK_ENDS]
    if seed % 10 == 0:
        averages.append(constant_weights([jnp.asarray(x) for x in xs]))
    for average in averages:
        assert np.asarray(average).tobytes() == expected.astype(dtype).tobytes()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    weights=st.sampled_from([[1.0], [0.5, 0.5], [0.25, 0.75], [1 / 3] * 3]),
)
def test_the_average_of_one_array_with_itself_is_that_array(
    seed: int, dtype: np.dtype, weights: list[float]
) -> None:
    """Bit for bit, subnormals and -0.0 too, for weights that sum to 1."""
    x = random_weights(np.random.default_rng(seed), (50,), dtype)
    for array in BACK_ENDS:
        average = weighted_average([array(x)] * len(weights), weights)
        assert np.asarray(average).tobytes() == x.tobytes()


@pytest.mark.parametrize("array", BACK_ENDS)
def test_it_accumulates_in_float32(array: Any) -> None:
    """256 + 1 - 256 is 0 in bfloat16; 60000 + 60000 is infinite in float16."""
    one, many = (array(np.full(3, value, DTYPES[2])) for value in (1, 256))
    assert weighted_average([many, one, many], [1, 1, -1]).tolist() == [1, 1, 1]
    large = array(np.full(3, 60_000, np.float16))
    assert weighted_average([large, large], [1, -0.5]).tolist() == [30_000] * 3


@pytest.mark.parametrize("array", BACK_ENDS)
def test_trees_and_a_dtype_of_the_first(array: Any) -> None:
    a = {"p": array(np.float16([1, 2])), "q": [array(np.ones((2, 2), np.float32))]}
    b = {"p": array(np.float32([3, 4])), "q": [array(np.zeros((2, 2), np.float32))]}
    average = weighted_average([a, b], [0.5, 0.5])
    assert average["p"].tolist() == [2, 3]
    assert average["p"].dtype == np.float16
    assert average["q"][0].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_host_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(8).standard_normal((2, 9, 11), np.float32)
    whole = weighted_average([a, b.T.copy().T], [0.3, 0.9])
    monkeypatch.setattr(host.blocks, "BLOCK", 7)
    assert weighted_average([a, b], [0.3, 0.9]).tobytes() == whole.tobytes()


def test_the_host_refuses_nan_and_overflows_as_the_device_does() -> None:
    nan, infinite = np.float32([1, np.nan]), np.float32([1, np.inf])
    for xs in [{"q": nan}, {"q": nan}], [{"q": infinite}, {"q": -infinite}]:
        with pytest.raises(ValueError, match=r"\['q'\] has a weighted average of NaN"):
            weighted_average(xs, [0.5, 0.5])
    assert jnp.isnan(weighted_average([jnp.asarray(nan)], [1])[1])
    largest = np.array([65504], np.float16)
    assert weighted_average([largest, largest], [1, 1]) == np.inf
    assert weighted_average([jnp.asarray(largest)] * 2, [1, 1]) == np.inf


@pytest.mark.parametrize("array", BACK_ENDS)
def test_what_does_not_fit_is_refused(array: Any) -> None:
    x = array(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="nothing to average"):
        weighted_average([], [])
    with pytest.raises(ValueError, match="2 to average but 1 weights"):
        weighted_average([x, x], [1])
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        weighted_average([x, x[:2]], [1, 1])
    with pytest.raises(TypeError, match="dtype int32"):
        weighted_average([x, x.astype(np.int32)], [1, 1])
    with pytest.raises(ValueError, match=r"[Kk]ey|keys"):
        weighted_average([{"a": x}, {"b": x}], [1, 1])


def test_other_weights_compile_nothing_and_move_nothing_to_the_host() -> None:
    x = jnp.arange(4.0)
    weighted_average([x, x], [0.5, 0.5])
    compiled = device.average._weighted_average._cache_size()
    with jax.transfer_guard("disallow"):
        average = weighted_average((x, x), [0.25, 0.5])
    assert device.average._weighted_average._cache_size() == compiled
    assert average.tolist() == [0, 0.75, 1.5, 2.25]
    traced = jax.jit(lambda x, weights: weighted_average([x, 2 * x], weights))(x, jnp.array([1.0, 1]))
    assert traced.tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_host_writes_to_out_even_if_it_is_an_input_and_in_two_threads(
    monkeypatch: pytest.MonkeyPatch, dtype: np.dtype
) -> None:
    random = np.random.default_rng(10)
    x, y = (random_weights(random, (31, 8), dtype) for _ in "xy")
    y[::2] = x[::2]
    expected = weighted_average([x, y], [0.25, 0.75]).tobytes()
    monkeypatch.setattr(host.blocks, "BLOCK", 16)
    monkeypatch.setattr(host.blocks, "_LARGE", 1)
    for position in (None, 0, 1):
        xs = [x.copy(), y.copy()]
        out = np.zeros_like(x) if position is None else xs[position]
        assert weighted_average(xs, [0.25, 0.75], out=out) is out
        assert out.tobytes() == expected
    with pytest.raises(ValueError, match="out at the array is no numpy array"):
        weighted_average([x], [1], out=[0.0])
    with pytest.raises(ValueError, match="out is for host arrays"):
        weighted_average([jnp.asarray(x)], [1], out=x)
