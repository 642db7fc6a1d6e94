"""Sums and geometric methods against mergekit's on dense tensors, where it is installed."""

from typing import Any

import numpy as np
import pytest

from pamctl.merging.methods import karcher, linear, model_stock, multislerp, nuslerp, slerp, task_arithmetic
from pamctl.merging.methods.method import Method
from tests.merging.methods.combination_cases import (
    RIGHT_ANGLE,
    SIXTY_DEGREES,
    Tensor,
    Tensors,
    merged,
    random_tensors,
)

torch = pytest.importorskip("torch")
api = pytest.importorskip("mergekit.merge_methods.api")

ZERO = np.zeros((4, 5))
WEIGHTS = {2: [0.3, 1.2], 3: [0.3, 1.2, 0.7], 6: [0.3, 1.2, 0.7, 1.0, 0.1, 2.0]}
INPUTS = [random_tensors(seed, count) for seed in range(2) for count in WEIGHTS]
PAIRS = [
    *(random_tensors(seed, 2) for seed in range(3)),
    np.asarray(RIGHT_ANGLE, np.float64),
    np.asarray(SIXTY_DEGREES, np.float64),
    np.stack([random_tensors(0, 1)[0]] * 2),
    np.stack([random_tensors(0, 1)[0], ZERO]),
]


def of_mergekit(method: str, tensors: Tensors, base: int | None = None, **parameters: Any) -> Tensor:
    dense = [torch.tensor(tensor) for tensor in tensors]
    return np.asarray(api.merge_tensors(dense, method, parameters=parameters, base_index=base))


def same(one: Tensor, other: Tensor) -> None:
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("tensors", INPUTS)
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(tensors: Tensor, normalize: bool) -> None:
    weights = WEIGHTS[len(tensors)]
    ours = merged(linear.METHOD, tensors, weights, variant="mergekit" if normalize else "paper")
    same(ours, of_mergekit("linear", tensors, weight=weights, normalize=normalize))


@pytest.mark.parametrize("tensors", INPUTS)
def test_task_arithmetic(tensors: Tensor) -> None:
    weights = WEIGHTS[len(tensors)]
    theirs = of_mergekit("task_arithmetic", [ZERO, *tensors], 0, weight=weights, **{"lambda": 0.4})
    same(merged(task_arithmetic.METHOD, tensors, weights, lambda_=0.4), theirs)


@pytest.mark.parametrize("tensors", PAIRS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp(tensors: Tensor, t: float) -> None:
    same(merged(slerp.METHOD, tensors, t=t), of_mergekit("slerp", tensors, 0, t=t))


@pytest.mark.parametrize("tensors", PAIRS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 0.6), (1.0, -1.0), (1.5, -0.5)])
@pytest.mark.parametrize("row_wise", [False, True])
def test_nuslerp(tensors: Tensor, weights: tuple[float, float], row_wise: bool) -> None:
    ours = merged(nuslerp.METHOD, tensors, weights, row_wise=row_wise)
    same(ours, of_mergekit("nuslerp", tensors, weight=list(weights), nuslerp_flatten=not row_wise))


@pytest.mark.parametrize("tensors", [*INPUTS, PAIRS[-1]])
@pytest.mark.parametrize("normalize", [True, False])
def test_multislerp(tensors: Tensor, normalize: bool) -> None:
    weights = WEIGHTS[len(tensors)]
    ours = merged(multislerp.METHOD, tensors, weights, normalize_weights=normalize)
    same(ours, of_mergekit("multislerp", tensors, weight=weights, normalize_weights=normalize))


@pytest.mark.parametrize("tensors", [*INPUTS, PAIRS[-1]])
@pytest.mark.parametrize("max_iter", [1, 10])
def test_karcher(tensors: Tensor, max_iter: int) -> None:
    same(
        merged(karcher.METHOD, tensors, max_iter=max_iter), of_mergekit("karcher", tensors, max_iter=max_iter)
    )


@pytest.mark.parametrize("alike", [0.5, 3.0])
@pytest.mark.parametrize("count", WEIGHTS)
@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_where_the_cosines_are_positive(alike: float, count: int, filter_wise: bool) -> None:
    tensors = np.abs(random_tensors(1, count, alike))
    ours = merged(model_stock.METHOD, tensors, filter_wise=filter_wise)
    same(ours, of_mergekit("model_stock", [np.zeros((4, 5)), *tensors], 0, filter_wise=filter_wise))


@pytest.mark.parametrize(
    ("method", "parameters"), [(multislerp.METHOD, {"weight": [0.3]}), (karcher.METHOD, {})]
)
def test_a_tensor_alone_is_passed_on(method: Method, parameters: dict[str, Any]) -> None:
    tensor = random_tensors(0, 1)
    same(merged(method, tensor), of_mergekit(method.name, tensor, **parameters))
