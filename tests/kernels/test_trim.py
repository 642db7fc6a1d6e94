from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from agreement_reference import bits, trimmed
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, random_top_p, random_weights
from pamctl_kernels import magnitude_threshold, trim
from pamctl_kernels.host import blocks

BACK_ENDS = [np.asarray, jnp.asarray]


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_reaches_the_threshold_is_kept_and_the_rest_is_positive_zero(array: Any, dtype: Any) -> None:
    x = array(np.array([[1, -2, 0.5], [-0.0, 2, -0.25]], dtype))
    kept = trim(x, 1)
    assert bits(kept) == bits(np.array([[1, -2, 0], [0, 2, 0]], dtype))
    assert bits(trim(x, 0)) == bits(trim(x, None)) == bits(np.array([[1, -2, 0.5], [0, 2, -0.25]], dtype))
    assert not np.asarray(trim(x, float("inf"))).any()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES))
def test_both_back_ends_follow_the_definition(seed: int, dtype: Any) -> None:
    random = np.random.default_rng(seed)
    x = random_weights(random, (3, 20), dtype)
    threshold = magnitude_threshold(x, random_top_p(random))
    for array in BACK_ENDS:
        assert bits(trim(array(x), array(threshold))) == bits(trimmed(x, threshold))


@pytest.mark.parametrize("array", BACK_ENDS)
def test_trees_take_one_threshold_or_a_tree_of_them(array: Any) -> None:
    tree = {"a": array(np.float32([1, -3])), "b": [array(np.float32([[2, 4]]))]}
    assert trim(tree, 2)["a"].tolist() == [0, -3]
    each = trim(tree, {"a": 1, "b": [array(np.float32([[3, 5]]))]})
    assert each["a"].tolist() == [1, -3]
    assert each["b"][0].tolist() == [[0, 0]]


def test_host_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal((9, 11), np.float32)
    limits = np.float32(np.linspace(0, 2, 11))
    monkeypatch.setattr(blocks, "BLOCK", 7)
    assert bits(trim(x, limits)) == bits(np.where(np.abs(x) >= limits, x, np.float32(0)))
    assert bits(trim(x.T, 1)) == bits(trimmed(x.T, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_refused_on_the_host_and_stays_on_a_device(dtype: Any, sign: int) -> None:
    x = np.array([1, np.copysign(np.nan, sign)], dtype)
    with pytest.raises(ValueError, match=r"\['q'\] holds NaN"):
        trim({"q": x}, 0.5)
    with pytest.raises(ValueError, match="the threshold of the array holds NaN"):
        trim(np.ones(2, dtype), float("nan"))
    assert np.isnan(np.asarray(trim(jnp.asarray(x), 2)).astype(np.float32)).tolist() == [False, True]
    assert jnp.isnan(trim(jnp.ones(2, dtype), float("nan"))).all()


@pytest.mark.parametrize("array", BACK_ENDS)
def test_what_does_not_fit_is_refused(array: Any) -> None:
    x = array(np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match="dtype float16, g has float32"):
        trim(x, array(np.float16(1)))
    with pytest.raises(ValueError, match="does not broadcast"):
        trim(x, array(np.ones((3, 1), np.float32)))
    with pytest.raises(TypeError, match="dtype int32"):
        trim(x.astype(np.int32), 1)
