import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import DTYPES, random_size, random_top_p, random_weights, rank, sorted_threshold
from pamctl_kernels import device, host, magnitude_threshold
from pamctl_kernels.top_p import important_count

BACK_ENDS = [np.asarray, jnp.asarray]


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0, np.inf), (1, 4), (25, 4), (25.1, 3), (50, 3), (60, 3), (75, 3), (76, 0), (100, 0), ("37.5", 3)],
)
def test_worked_by_hand(array: Any, dtype: np.dtype, top_p: object, expected: float) -> None:
    """|x| is 4, 3, 3, 0: k is ceil(top_p / 25), and a signed threshold would pick 0 or -3."""
    threshold = magnitude_threshold(array(np.array([-4, 3, -0.0, -3], dtype)), top_p)
    assert float(threshold) == expected
    assert threshold.dtype == dtype
    assert threshold.shape == ()
    assert not np.signbit(np.asarray(threshold, np.float32))


def test_ten_thousand_cases_on_the_host() -> None:
    random = np.random.default_rng(1)
    for case in range(10_000):
        x = random_weights(random, random_size(random), DTYPES[case % 3])
        top_p = random_top_p(random)
        assert float(magnitude_threshold(x, top_p)) == sorted_threshold(x, top_p), (
            case,
            x.size,
            x.dtype,
            top_p,
        )


def test_two_thousand_cases_on_the_device() -> None:
    """Padded with zeros to few shapes: they come last, so the k-th largest stays where k stays."""
    random = np.random.default_rng(2)
    for case in range(2_000):
        x = random_weights(random, random_size(random), DTYPES[case % 3])
        top_p = random_top_p(random)
        padded = np.zeros(next(size for size in (128, 10_000, 1_000_000) if size >= x.size), x.dtype)
        padded[: x.size] = x
        same_k = Fraction(100 * rank(top_p, x.size), padded.size)
        threshold = magnitude_threshold(jnp.asarray(padded), same_k)
        assert float(np.asarray(threshold)) == sorted_threshold(x, top_p), (case, x.size, x.dtype, top_p)


@pytest.mark.parametrize("top_p", [0.001, 10, 49.9, 50, 50.1, 90, 99.999, 100])
@pytest.mark.parametrize(
    "x",
    [
        np.arange(100_000, dtype=np.float32),
        np.repeat(np.float32([0, 1]), 50_000),
        np.concatenate([np.zeros(50_000, np.float32), np.arange(50_000, dtype=np.float32)]),
        np.full(100_000, -2, np.float32),
        np.where(np.arange(100_000) == 77_777, np.inf, 1e-45).astype(np.float32),
    ],
    ids=["sorted", "two values", "half zeros", "constant", "one giant"],
)
def test_host_streams_hard_arrays(x: np.ndarray, top_p: float) -> None:
    assert magnitude_threshold(x, top_p) == sorted_threshold(x, top_p)


@pytest.mark.parametrize("bracket", [(-1, 0), (-1, 1), (0, 0x3F800000), (0x7F800000, 0x7F800000), (5, 5)])
def test_a_bracket_that_misses_costs_no_exactness(
    monkeypatch: pytest.MonkeyPatch, bracket: tuple[int, int]
) -> None:
    monkeypatch.setattr(host.threshold, "_bracket", lambda *_: bracket)
    x = random_normal = np.random.default_rng(3).standard_normal(50_000, np.float32)
    x = np.where(random_normal < -1, 0, x)
    for top_p in (0.1, 50, 84, 99.9, 100):
        assert magnitude_threshold(x, top_p) == sorted_threshold(x, top_p)


@pytest.mark.parametrize("array", BACK_ENDS)
def test_leaves_are_pooled(array: Any) -> None:
    random = np.random.default_rng(4)
    parts = [
        random.standard_normal(shape, np.float32) for shape in ((3, 40, 8), (50_000,), (), (0, 4), (2, 5))
    ]
    tree = {
        "a": array(parts[0]),
        "b": [array(parts[1]), (array(parts[2]), array(parts[3]))],
        "c": array(parts[4]),
    }
    pooled = np.concatenate([part.ravel() for part in parts])
    for top_p in (0, 3, 50, 97.25, 100):
        assert float(magnitude_threshold(tree, top_p)) == sorted_threshold(pooled, top_p)


def test_host_takes_strided_and_mapped_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(5).standard_normal((300, 200), np.float32)
    assert magnitude_threshold(x.T[::2, ::-3], 30) == sorted_threshold(x.T[::2, ::-3], 30)
    np.save(tmp_path / "x.npy", x)
    assert magnitude_threshold(np.load(tmp_path / "x.npy", mmap_mode="r"), 30) == sorted_threshold(x, 30)


@pytest.mark.parametrize("array", BACK_ENDS)
def test_nothing_is_important_among_no_weights(array: Any) -> None:
    assert magnitude_threshold(array(np.zeros(0, np.float32)), 100) == np.inf


@pytest.mark.parametrize("size", [4, 40_000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_is_refused(size: int, dtype: np.dtype) -> None:
    x = np.ones(size, dtype)
    x[-1] = -np.nan
    on_device = {"p": jnp.ones(3, dtype), "q": [jnp.asarray(x)]}
    for top_p in (0, 50):
        with pytest.raises(ValueError, match=r"\['q'\]\[0\] holds NaN"):
            magnitude_threshold({"p": np.ones(3, dtype), "q": [x]}, top_p)
        assert jnp.isnan(magnitude_threshold(on_device, top_p))


@pytest.mark.parametrize("top_p", [-1, 100.001, float("nan"), "half", None, "1/0"])
def test_top_p_is_a_percentage(top_p: object) -> None:
    with pytest.raises(ValueError, match="percentage from 0 to 100"):
        magnitude_threshold(np.ones(3, np.float32), top_p)


@pytest.mark.parametrize(
    ("top_p", "n", "k"), [(14, 50, 7), (0.1, 1000, 1), (56.6, 10**9, 566_000_000), (Fraction(100, 3), 3, 1)]
)
def test_k_is_exact_in_decimal_text(top_p: object, n: int, k: int) -> None:
    """In doubles 0.14 * 50 is 7.000000000000001, whose ceiling is 8."""
    assert math.ceil(0.14 * 50) == 8
    assert important_count(top_p, n) == k


@pytest.mark.parametrize("array", BACK_ENDS)
def test_dtypes_are_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="the array has dtype int32: cast it"):
        magnitude_threshold(array(np.ones(3, np.int32)), 50)
    with pytest.raises(TypeError, match=r"leaves of one dtype, found .*float16.*float32"):
        magnitude_threshold([array(np.ones(3, np.float32)), array(np.ones(3, np.float16))], 50)


@pytest.mark.parametrize("x", [np.ones(3), np.ones(3, ">f4"), [1.0], {}, None])
def test_what_is_no_array_of_the_three_formats_is_refused(x: Any) -> None:
    with pytest.raises(TypeError):
        magnitude_threshold(x, 50)


def test_more_weights_than_int32_counts_are_refused() -> None:
    half = jax.ShapeDtypeStruct((2**15, 2**15), jnp.bfloat16)
    with pytest.raises(ValueError, match="2147483648 weights in one call"):
        jax.eval_shape(lambda *x: magnitude_threshold(x, 50), half, half)


def test_another_top_p_compiles_nothing_and_moves_nothing_to_the_host() -> None:
    x = {"a": jnp.arange(10.0), "b": jnp.arange(5.0)}
    magnitude_threshold(x, 50)
    compiled = device.threshold._kth_largest._cache_size()
    with jax.transfer_guard("disallow"):
        thresholds = [magnitude_threshold(x, top_p) for top_p in (0, 12.5, 99)]
    assert device.threshold._kth_largest._cache_size() == compiled
    assert [float(threshold) for threshold in thresholds] == [np.inf, 8, 0]


def test_it_traces_into_a_larger_program() -> None:
    x = jnp.arange(10.0)
    assert jax.jit(lambda x: magnitude_threshold(x, 20) + 1)(x) == 9
    assert jax.vmap(lambda x: magnitude_threshold(x, 20))(jnp.stack([x, -2 * x])).tolist() == [8, 16]


def test_the_device_keeps_no_copy_of_the_weights() -> None:
    x = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    compiled = jax.jit(lambda x: magnitude_threshold(x, 50)).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 5 * 4 * device.threshold.SAMPLE


def passes_for(x: np.ndarray, top_p: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the device reads `x` to find its threshold, which is checked."""
    reads = []

    def counted(*arguments: Any) -> Any:
        reads.append(1)
        return count_at_least(*arguments)

    count_at_least = device.threshold.count_at_least
    with monkeypatch.context() as patched, jax.disable_jit():
        patched.setattr(device.threshold, "count_at_least", counted)
        found = float(np.asarray(device.threshold.magnitude_threshold(jnp.asarray(x), top_p)))
    assert found == sorted_threshold(x, top_p)
    return len(reads)


def test_weights_of_a_usual_spread_take_few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(1_000_000, np.float32)
    assert max(passes_for(x, top_p, monkeypatch) for top_p in (1, 20, 50, 90)) <= 8


def test_no_spread_takes_many_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    spreads = [
        np.zeros(1000, np.float32),
        np.float32([0.0] * 500 + [1e-45] * 499 + [3e38]),
        np.exp(random.uniform(-80, 80, 3000)).astype(np.float32),
        np.where(random.random(100_000) < 0.9, 0, random.standard_normal(100_000)).astype(np.float32),
    ]
    for x in spreads:
        assert max(passes_for(x, top_p, monkeypatch) for top_p in (0.1, 10, 50, 99)) <= 24
