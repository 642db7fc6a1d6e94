"""What all sums of inputs have in common, whatever their coefficients."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamctl.merging.methods import (
    average,
    cat,
    karcher,
    linear,
    model_stock,
    multislerp,
    nuslerp,
    running_average,
    slerp,
    svd,
    task_arithmetic,
)
from pamctl.merging.methods.method import Combination, Method
from pamctl.refusal import UsageRefusal
from tests.merging.methods.combination_cases import coefficients, gram_matrix, merged, random_tensors

METHODS: list[tuple[Method, dict[str, Any]]] = [
    (average.METHOD, {}),
    (running_average.METHOD, {"count": 3}),
    (linear.METHOD, {"variant": "paper"}),
    (linear.METHOD, {"variant": "mergekit"}),
    (task_arithmetic.METHOD, {"lambda": 0.4}),
    (cat.METHOD, {}),
    (svd.METHOD, {}),
    (slerp.METHOD, {"t": 0.3}),
    (nuslerp.METHOD, {}),
    (nuslerp.METHOD, {"row_wise": True}),
    (multislerp.METHOD, {}),
    (multislerp.METHOD, {"normalize_weights": False}),
    (karcher.METHOD, {}),
    (model_stock.METHOD, {}),
    (model_stock.METHOD, {"filter_wise": True}),
]
UNWEIGHTED = {"running-average", "slerp", "model-stock"}
ANGULAR = [(method, given) for method, given in METHODS if method.work.uses_gram]  # type: ignore[union-attr]

each = pytest.mark.parametrize(
    ("method", "parameters"),
    METHODS,
    ids=[" ".join([method.name, *map(str, given.values())]) for method, given in METHODS],
)
each_angular = pytest.mark.parametrize(
    ("method", "parameters"),
    ANGULAR,
    ids=[" ".join([method.name, *map(str, given.values())]) for method, given in ANGULAR],
)


def inputs_of(method: Method) -> int:
    return method.most or 3


def weights_of(method: Method) -> list[float] | None:
    return None if method.name in UNWEIGHTED else [0.5, 1.25, 2.0][: inputs_of(method)]


@each
def test_one_input_alone_comes_out_as_it_is(method: Method, parameters: dict[str, Any]) -> None:
    expected = parameters.get("lambda", 1.0)
    found = coefficients(method, random_tensors(0, 1), **parameters)
    np.testing.assert_array_equal(found, np.full(found.shape, expected))


@each
def test_equal_inputs_whose_weights_sum_to_1_come_out_as_one_of_them(
    method: Method, parameters: dict[str, Any]
) -> None:
    tensor, count = random_tensors(0, 1)[0], inputs_of(method)
    weights = None if method.name in UNWEIGHTED else [1 / count] * count
    found = merged(method, [tensor] * count, weights, **parameters)
    np.testing.assert_allclose(found, parameters.get("lambda", 1.0) * tensor, rtol=1e-7)


@each
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.sampled_from([1e-3, 0.25, 7.0, -1.0, -40.0]))
def test_scaling_all_inputs_scales_the_result(
    method: Method, parameters: dict[str, Any], seed: int, factor: float
) -> None:
    tensors, weights = random_tensors(seed, inputs_of(method)), weights_of(method)
    np.testing.assert_allclose(
        merged(method, factor * tensors, weights, **parameters),
        factor * merged(method, tensors, weights, **parameters),
        rtol=1e-4,
        atol=1e-5 * abs(factor),
    )


@each
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.data())
def test_only_methods_that_say_so_depend_on_the_order(
    method: Method, parameters: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    tensors, weights = random_tensors(seed, inputs_of(method)), weights_of(method)
    order = data.draw(st.permutations(range(len(tensors))))
    turned = None if weights is None else [weights[i] for i in order]
    one = merged(method, tensors, weights, **parameters)
    other = merged(method, tensors[order], turned, **parameters)
    if method.symmetric or list(order) == sorted(order):
        np.testing.assert_allclose(other, one, atol=1e-9)
    elif order[0] != 0:
        assert not np.allclose(other, one)


@each
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_turning_inputs_and_outputs_turns_the_result(
    method: Method, parameters: dict[str, Any], seed: int
) -> None:
    rng, tensors, weights = np.random.default_rng(seed), random_tensors(seed, inputs_of(method)), None
    by_row = method.work.by_row(parameters | {"row_wise": False, "filter_wise": False} | parameters)  # type: ignore[union-attr]
    left = np.eye(4) if by_row else np.linalg.qr(rng.standard_normal((4, 4)))[0]
    right = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    np.testing.assert_allclose(
        merged(method, left @ tensors @ right, weights, **parameters),
        left @ merged(method, tensors, weights, **parameters) @ right,
        atol=1e-9,
    )


@each_angular
def test_rows_are_taken_one_by_one(method: Method, parameters: dict[str, Any]) -> None:
    work = method.work
    assert isinstance(work, Combination)
    settings = {one.name: one.default for one in method.parameters} | parameters
    weights = np.full(inputs_of(method), 1.0)
    rows = gram_matrix(random_tensors(5, inputs_of(method)), by_row=True)
    one_by_one = [work.coefficients(row, weights, settings) for row in rows]
    np.testing.assert_allclose(work.coefficients(rows, weights, settings), one_by_one, rtol=1e-12)


@each_angular
@pytest.mark.parametrize("signs", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1), (1, -1, 1), (1, -1, 0)])
@pytest.mark.parametrize("length", [1e-30, 1e-7, 1.0, 1e12])
def test_zero_equal_and_opposite_inputs_give_numbers_no_larger_than_the_inputs(
    method: Method, parameters: dict[str, Any], signs: tuple[int, ...], length: float
) -> None:
    tensors = [sign * length * random_tensors(1, 1)[0] for sign in signs[: inputs_of(method)]]
    if method.name == "multislerp" and signs == (1, -1, 0) and length > 1e-8:
        with pytest.raises(UsageRefusal, match="cancel"):
            merged(method, tensors, **parameters)
        return
    found = merged(method, tensors, **parameters)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) <= 3.01 * length * np.linalg.norm(random_tensors(1, 1)[0])


@each_angular
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.floats(1e-17, 1e-5), st.sampled_from([1, -1]))
def test_inputs_that_are_equal_or_opposite_up_to_rounding_do_no_harm(
    method: Method, parameters: dict[str, Any], seed: int, apart: float, sign: int
) -> None:
    first, *rest = random_tensors(seed, inputs_of(method))
    near = [sign * first + apart * each for each in rest]
    found = merged(method, [first, *near], **parameters)
    assert np.isfinite(found).all()
    if sign == 1:
        assert np.linalg.norm(found) <= 3.01 * np.linalg.norm(first)
