from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, random_top_p, random_weights
from pamctl_kernels import magnitude_threshold, realign, sign_conflicts
from pamctl_kernels.device import realignment
from pamctl_kernels.host import blocks

BACK_ENDS = [np.asarray, jnp.asarray]


def naive_conflicts(w: np.ndarray, g: np.ndarray, threshold: Any) -> np.ndarray:
    """The definition, in float64."""
    w, g, threshold = (np.asarray(x).astype(np.float64) for x in (w, g, threshold))
    return (np.abs(g) >= threshold) & (g != 0) & (np.sign(w) != np.sign(g))


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_worked_by_hand(array: Any, dtype: np.dtype) -> None:
    w = array(np.array([1, -1, 0, -0.0, 2, -3, 1, 1], dtype))
    g = array(np.array([-2, 2, -2, 2, 2, 1, 0, -0.0], dtype))
    important = [True, True, True, True, False, False, False, False]
    every = [True, True, True, True, False, True, False, False]
    assert sign_conflicts(w, g, 2).tolist() == important
    assert sign_conflicts(w, g, 2.1).tolist() == [False] * 8
    for nothing_less in (0, -0.0, -5):
        assert sign_conflicts(w, g, nothing_less).tolist() == every
    put_back, count = realign(w, g, 2)
    assert put_back.tolist() == [-2, 2, -2, 2, 2, -3, 1, 1]
    assert int(count) == 4
    zeroed, count = realign(w, g, 2, "zero")
    assert zeroed.tolist() == [0, 0, 0, 0, 2, -3, 1, 1]
    assert int(count) == 4
    assert zeroed.dtype == put_back.dtype == dtype
    assert np.issubdtype(count.dtype, np.integer)
    assert w.tolist() == [1, -1, 0, 0, 2, -3, 1, 1]


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES), reinit=st.sampled_from(["global", "zero"])
)
def test_both_back_ends_follow_the_definition(seed: int, dtype: np.dtype, reinit: Any) -> None:
    random = np.random.default_rng(seed)
    w, g = (random_weights(random, (3, 20, 4), dtype) for _ in "wg")
    threshold = magnitude_threshold(g, random_top_p(random))
    expected = naive_conflicts(w, g, threshold)
    new = np.where(expected, g if reinit == "global" else np.zeros_like(g), w)
    for array in BACK_ENDS:
        leaves = array(w), array(g), array(threshold)
        assert same_bits(sign_conflicts(*leaves), expected)
        aligned, count = realign(*leaves, reinit)
        assert same_bits(aligned, new)
        assert count == expected.sum()
        _, counts = realign(*leaves, reinit, per_layer=True)
        assert counts.tolist() == expected.sum((1, 2)).tolist()


@pytest.mark.parametrize("block", [1, 5, 8, 40, 1000])
def test_host_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    random = np.random.default_rng(6)
    w, g = (random.standard_normal((7, 5, 8), np.float32) for _ in "wg")
    tau = random.random((7, 1, 8), np.float32)
    monkeypatch.setattr(blocks, "BLOCK", block)
    expected = naive_conflicts(w, g, tau)
    for a, b, t, e in [
        (w, g, tau, expected),
        (w.T, g.T, tau.T, expected.T),
        (w[0, 0], g[0, 0], tau[0, 0], expected[0, 0]),
    ]:
        aligned, counts = realign(a, b, t, per_layer=True)
        assert (aligned == np.where(e, b, a)).all()
        assert counts.tolist() == e.sum(tuple(range(1, e.ndim))).tolist()
        assert realign(a, b, t)[1] == e.sum()
        assert (sign_conflicts(a, b, t) == e).all()


@pytest.mark.parametrize("array", BACK_ENDS)
def test_trees_with_a_threshold_for_each_layer_of_each_leaf(array: Any) -> None:
    random = np.random.default_rng(7)
    w, g = ({k: random.standard_normal((4, 6, 2), np.float32) for k in "ba"} for _ in "wg")
    tau = {"a": random.random((4, 1, 1), np.float32), "b": np.float32(0.5)}
    device_like = [jax.tree.map(array, tree) for tree in (w, g, tau)]
    aligned, counts = realign(*device_like, per_layer=True)
    _, total = realign(*device_like)
    masks = sign_conflicts(*device_like)
    expected = {k: naive_conflicts(w[k], g[k], tau[k]) for k in "ab"}
    for k in "ab":
        assert (np.asarray(masks[k]) == expected[k]).all()
        assert (np.asarray(aligned[k]) == np.where(expected[k], g[k], w[k])).all()
        assert counts[k].tolist() == expected[k].sum((1, 2)).tolist()
    assert int(total) == expected["a"].sum() + expected["b"].sum()
    one_for_all = sign_conflicts(*device_like[:2], 0.5)
    assert (np.asarray(one_for_all["a"]) == naive_conflicts(w["a"], g["a"], 0.5)).all()


@pytest.mark.parametrize("array", BACK_ENDS)
def test_scalars_and_empty_trees(array: Any) -> None:
    w, g = array(np.float32(-1)), array(np.float32(2))
    assert int(realign(w, g, 1)[1]) == 1
    assert int(realign(w, g, 1, per_layer=True)[1]) == 1
    assert float(realign(w, g, 1)[0]) == 2
    assert realign({}, {}, 1) == ({}, 0)


def test_the_host_refuses_nan_by_name() -> None:
    ones, nan = np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32)
    for w, g, threshold, who in [(nan, ones, 0, r"\['q'\] of w"), (ones, nan, 0, r"\['q'\] of g")]:
        with pytest.raises(ValueError, match=f"{who} holds NaN"):
            realign({"q": w}, {"q": g}, threshold)
    for threshold in (np.nan, -np.float32(np.nan)):
        with pytest.raises(ValueError, match="the threshold of the array holds NaN"):
            sign_conflicts(ones, ones, threshold)


def test_the_device_counts_minus_one_where_there_is_nan() -> None:
    w, g = jnp.array([[1.0, 2], [3, 4]]), -jnp.ones((2, 2))
    tau = jnp.array([[0.5], [0.5]])
    for bad in [
        (w.at[1, 0].set(jnp.nan), g, tau),
        (w, g.at[1, 0].set(-jnp.nan), tau),
        (w, g, tau.at[1].set(jnp.nan)),
    ]:
        assert realign(*bad)[1] == -1
        assert realign(*bad, per_layer=True)[1].tolist() == [2, -1]
    refused = magnitude_threshold(g.at[0, 0].set(jnp.nan), 50)
    aligned, count = realign(w, g, refused)
    assert (aligned == w).all()
    assert count == -1


@pytest.mark.parametrize("array", BACK_ENDS)
def test_what_does_not_fit_is_refused(array: Any) -> None:
    w = array(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="reinit is 'init'"):
        realign(w, w, 0, "init")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(2, 3\) in w and \(2,\) in g"):
        realign(w, w[:, 0], 0)
    with pytest.raises(TypeError, match="dtype float32 in w and float16 in g"):
        sign_conflicts(w, w.astype(np.float16), 0)
    with pytest.raises(TypeError, match="threshold of the array has dtype float16"):
        realign(w, w, array(np.float16(0)))
    for shape in [(2,), (1, 2, 3), (4, 1)]:
        with pytest.raises(ValueError, match="does not broadcast"):
            realign(w, w, array(np.zeros(shape, np.float32)))
    with pytest.raises(ValueError, match="key"):
        realign({"a": w}, {"b": w}, 0)
    with pytest.raises(ValueError, match=r"length|arity"):
        realign([w, w], [w, w], [0])


def test_another_threshold_compiles_nothing_and_moves_nothing_to_the_host() -> None:
    w, g = {"a": jnp.arange(-3.0, 3)}, {"a": jnp.ones(6)}
    realign(w, g, jnp.float32(0.5))
    compiled = realignment._realign._cache_size()
    with jax.transfer_guard("disallow"):
        results = [realign(w, g, threshold)[1] for threshold in (0.25, 1, np.float32(2))]
    assert realignment._realign._cache_size() == compiled
    assert [int(count) for count in results] == [4, 4, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_compiler_takes_a_subnormal_for_zero(dtype: np.dtype) -> None:
    """With constants in sight LLVM may compare floats instead of bits, under flags that flush subnormals."""
    tiny = np.finfo(dtype).smallest_subnormal if dtype != DTYPES[2] else DTYPES[2].type(9.2e-41)
    w, g = np.array([tiny, -tiny, 0, 1, -1] * 20, dtype), np.array([tiny] * 100, dtype)
    for threshold in (0, float(tiny)):
        for program in (sign_conflicts, jax.jit(lambda w, g, t=threshold: sign_conflicts(w, g, t))):
            arguments = (w, g, threshold) if program is sign_conflicts else (w, g)
            mask = program(*map(jnp.asarray, arguments[:2]), *arguments[2:])
            assert mask.tolist() == [False, True, True, False, True] * 20
        program = jax.jit(lambda w, g, t=threshold: realign(w, g, t))
        aligned, count = program(jnp.asarray(w), jnp.asarray(g))
        assert same_bits(aligned, realign(w, g, threshold)[0])
        assert count == 60


def test_it_traces_into_a_larger_program_with_donated_weights() -> None:
    @jax.jit
    def step(w: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return realign(w * 2, g, magnitude_threshold(g, 50))

    w, g = jnp.array([-1.0, 1]), jnp.array([3.0, 1])
    assert [x.tolist() for x in step(w, g)] == [[3, 2], 1]
    aligned, count = jax.jit(realign, donate_argnums=0)(w, g, 1.0)
    assert w.is_deleted()
    assert aligned.tolist() == [3, 1]
    assert count == 1


def test_the_device_reads_its_inputs_twice_at_most() -> None:
    """One fused pass writes, one counts: nothing the size of a leaf is stored in between."""
    leaf = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    compiled = jax.jit(lambda w, g: realign(w, g, 0.5)).lower(leaf, leaf).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10_000


def test_the_host_writes_to_out_even_if_it_is_w_and_in_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    w, g = np.random.default_rng(9).standard_normal((2, 31, 8), np.float32)
    expected, counts = realign(w, g, 0.5, per_layer=True)
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(blocks, "_LARGE", 1)
    out = {"a": np.zeros_like(w)}
    aligned, threaded = realign({"a": w}, {"a": g}, 0.5, per_layer=True, out=out)
    assert aligned["a"] is out["a"]
    assert same_bits(aligned["a"], expected)
    assert threaded["a"].tolist() == counts.tolist()
    assert realign(w, g, 0.5, out=w)[0] is w
    assert same_bits(w, expected)
    with pytest.raises(ValueError, match="out at the array is no numpy array of shape"):
        realign(w, g, 0.5, out=out["a"][:3])
    with pytest.raises(ValueError, match="out is for host arrays"):
        realign(jnp.asarray(w), jnp.asarray(g), 0.5, out=w)
