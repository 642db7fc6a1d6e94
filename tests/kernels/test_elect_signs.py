from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from agreement_reference import bits, elected, tied_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES
from pamctl_kernels import elect_signs

BACK_ENDS = [np.asarray, jnp.asarray]


@pytest.mark.parametrize("array", BACK_ENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_worked_by_hand(array: Any, dtype: Any) -> None:
    """Sums are 0, -1, 3; weighted (2, 1, 1) they are 3, -3, 5; signs sum to -1, 1, 1."""
    rows = [[3, -2, 2], [-1, 0.5, 1], [-2, 0.5, 0]]
    xs = [array(np.array(row, dtype)) for row in rows]
    total = elect_signs(xs)
    assert total.tolist() == [0, -1, 1]
    assert total.dtype == np.int8
    assert elect_signs(xs, [2, 1, 1]).tolist() == [1, -1, 1]
    assert elect_signs(xs, by="frequency").tolist() == [-1, 1, 1]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(DTYPES), by=st.sampled_from(["total", "frequency"])
)
def test_both_back_ends_follow_the_definition(seed: int, dtype: Any, by: Any) -> None:
    random = np.random.default_rng(seed)
    xs = [tied_weights(random, (6, 7), dtype) for _ in range(3)]
    weights = random.standard_normal(3).tolist() if by == "total" and seed % 2 else None
    for array in BACK_ENDS:
        assert bits(elect_signs([array(x) for x in xs], weights, by)) == bits(elected(xs, weights, by))


@pytest.mark.parametrize("array", BACK_ENDS)
def test_trees_and_infinities_that_cancel(array: Any) -> None:
    infinite = array(np.float32([np.inf, -np.inf, 1]))
    tree = {"a": infinite, "b": [array(np.float32(2))]}
    other = {"a": -infinite, "b": [array(np.float32(-3))]}
    signs = elect_signs([tree, other])
    assert signs["a"].tolist() == [0, 0, 0]
    assert int(signs["b"][0]) == -1
    assert elect_signs([infinite]).tolist() == [1, -1, 1]


@pytest.mark.parametrize("by", ["total", "frequency"])
def test_the_host_refuses_nan(by: Any) -> None:
    with pytest.raises(ValueError, match=r"\['q'\] holds NaN"):
        elect_signs([{"q": np.float32([1, np.nan])}, {"q": np.float32([1, 1])}], by=by)


@pytest.mark.parametrize("array", BACK_ENDS)
def test_what_makes_no_election_is_refused(array: Any) -> None:
    x = array(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="nothing to merge"):
        elect_signs([])
    with pytest.raises(ValueError, match="1 to merge but 2 weights"):
        elect_signs([x], [1, 2])
    with pytest.raises(ValueError, match="take no weights"):
        elect_signs([x], [1], by="frequency")
    with pytest.raises(ValueError, match="give 'total' or 'frequency'"):
        elect_signs([x], by="majority")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        elect_signs([x, x[:2]])
