"""What holds for every method that trims, drops, elects signs or selects, in each of its variants."""

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import NAMES, explanation, magmax, method_named, nearswap, sce
from pamctl.merging.methods.method import Elementwise, Method
from tests.merging.methods.elementwise_cases import (
    ONE,
    SEEDS,
    Pieces,
    drawn,
    merged,
    merged_all,
    random_inputs,
    settings_for,
)

METHODS = [method for method in map(method_named, NAMES) if isinstance(method.work, Elementwise)]


@dataclass(frozen=True)
class Case:
    method: Method
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.method.parameters}

    @property
    def whole(self) -> dict[str, Any]:
        """The options with everything kept."""
        everything = {"density": 1, "gamma": 0, "select_topk": 1, "k": 0, "t": 100.0}
        return self.options | {name: value for name, value in everything.items() if name in self.names}

    def __str__(self) -> str:
        return " ".join([self.method.name, *map(str, self.options.values())])


CASES = [
    Case(method, {"variant": variant} if variant else {})
    for method in METHODS
    for variant in method.variants or (None,)
] + [Case(sce.METHOD, {"select_topk": 0.4})]
SYMMETRIC = [case for case in CASES if case.method.symmetric]
INPUTS = 3

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def some(case: Case, seed: int) -> list[Any]:
    return random_inputs(seed, case.method.most or INPUTS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_its_explanation_starts_with_a_sentence_and_names_every_parameter_and_variant(method: Method) -> None:
    explained = explanation(method.name)
    first, *others = explained.splitlines()
    assert first.endswith(".")
    assert not others[0]
    assert "Source" in explained
    for name in (each.name for each in method.parameters):
        assert f"  {name}" in explained or f", {name}" in explained, name
    assert all(f"  {variant}" in explained for variant in method.variants)


@every_case
def test_one_adapter_of_weight_1_of_which_all_is_kept_is_itself(case: Case) -> None:
    np.testing.assert_array_equal(merged(case.method, [ONE], **case.whole), ONE)


@every_case
def test_copies_of_one_adapter_give_it_back(case: Case) -> None:
    """At weights 1 where a mean is taken or one is chosen, at weights 1/N where they are summed."""
    summed = case.options.get("merge", "mean") == "sum" or "merge" not in case.names
    if "merge" in case.names:
        merge = next(each for each in case.method.parameters if each.name == "merge")
        summed = merge.default_of(case.options.get("variant")) == "sum"
    summed &= case.method not in (magmax.METHOD, nearswap.METHOD)
    copies = case.method.most or 4
    found = merged(case.method, [ONE] * copies, [1 / copies if summed else 1] * copies, **case.whole)
    np.testing.assert_allclose(found, ONE, rtol=1e-6)


@every_case
@settings(max_examples=8)
@given(seed=SEEDS)
def test_a_scaled_adapter_merges_to_a_scaled_result(case: Case, seed: int) -> None:
    inputs, scale = some(case, seed), np.float32(0.25)
    given = case.options | ({"t": 0.5 * scale} if case.method is nearswap.METHOD else {})
    draws = [drawn(seed, x) for x in inputs]
    found = merged(case.method, [x * scale for x in inputs], draws=draws, **given)
    given |= {"t": 0.5} if case.method is nearswap.METHOD else {}
    expected = merged(case.method, inputs, draws=draws, **given) * scale
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@every_case
@settings(max_examples=8)
@given(seed=SEEDS)
def test_negated_adapters_merge_to_the_negated_result(case: Case, seed: int) -> None:
    """Elements drawn from a continuum never cancel, so that no rule for a sum of 0 is asked."""
    inputs = some(case, seed)
    found = merged(case.method, [-x for x in inputs], seed=seed, **case.options)
    np.testing.assert_array_equal(found, -merged(case.method, inputs, seed=seed, **case.options))


@pytest.mark.parametrize("case", SYMMETRIC, ids=str)
@settings(max_examples=8)
@given(seed=SEEDS, order=st.permutations(range(INPUTS)))
def test_the_order_of_the_adapters_does_not_matter(case: Case, seed: int, order: list[int]) -> None:
    inputs, weights = random_inputs(seed, INPUTS), [3.0, 1.0, 2.0]
    found = merged(
        case.method, [inputs[i] for i in order], [weights[i] for i in order], seed=seed, **case.options
    )
    expected = merged(case.method, inputs, weights, seed=seed, **case.options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_case
@settings(max_examples=8)
@given(seed=SEEDS, rows=st.integers(1, 9))
def test_rows_in_pieces_merge_to_the_same_bits(case: Case, seed: int, rows: int) -> None:
    shapes = [(9, 5), (4, 7)] if "scope" in case.names else [(9, 5)]
    tensors = [
        random_inputs(seed + rows, case.method.most or INPUTS, (rows, columns)) for rows, columns in shapes
    ]
    given = case.options | ({"scope": "global"} if "scope" in case.names else {})
    parts, whole = (merged_all(case.method, tensors, rows=step, **given) for step in (rows, 9))
    assert [each.tobytes() for each in parts] == [each.tobytes() for each in whole]


@every_case
def test_arrays_on_a_device_merge_to_the_same(case: Case) -> None:
    inputs = some(case, 0)
    on_device = merged(case.method, inputs, array=jnp.asarray, **case.options)
    np.testing.assert_allclose(on_device, merged(case.method, inputs, **case.options), rtol=1e-6, atol=1e-6)


@every_case
def test_rows_and_tensors_of_zeros_merge_without_a_warning(case: Case) -> None:
    zeros = np.zeros((3, 4), np.float32)
    count = case.method.most or INPUTS
    assert not merged(case.method, [zeros] * count, **case.options).any()
    mixed = [np.vstack([x, np.zeros((1, 8), np.float32)]) for x in some(case, 1)]
    assert np.isfinite(merged(case.method, mixed, **case.options)).all()


@every_case
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_single_rows_columns_and_elements_merge(case: Case, shape: tuple[int, int]) -> None:
    found = merged(case.method, random_inputs(0, case.method.most or INPUTS, shape), **case.options)
    assert found.shape == shape
    assert np.isfinite(found).all()


@every_case
def test_what_was_measured_is_measured_again_the_same(case: Case) -> None:
    inputs = some(case, 0)
    stream = Pieces([inputs], 2, None, 0, np.asarray)
    work, given = case.method.work, settings_for(case.method, len(inputs), **case.options)
    assert isinstance(work, Elementwise)
    if work.measure:
        shares = np.ones(len(inputs))
        assert work.measure(stream, shares, given) == work.measure(stream, shares, given)
