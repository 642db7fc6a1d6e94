"""Trimming, election and merging in plain numpy, one whole array after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ZERO = np.float32(0)


def trimmed(x: NDArray[Any], threshold: Any) -> NDArray[Any]:
    """The definition, in float64, which holds every value exactly."""
    limit = 0 if threshold is None else float(threshold)
    wide = x.astype(np.float64)
    return np.where((np.abs(wide) >= limit) & (wide != 0), x, np.zeros_like(x))


def summed(terms: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    total = np.zeros_like(terms[0], np.float32)
    for term in terms:
        total = total + term
    return total


def elected(xs: Sequence[NDArray[Any]], weights: Sequence[float] | None, by: str) -> NDArray[np.int8]:
    values = [x.astype(np.float32) for x in xs]
    if by == "frequency":
        return np.sign(summed([np.sign(value) for value in values])).astype(np.int8)
    shares = np.float32([1] * len(xs) if weights is None else weights)
    return np.sign(summed([v * w for v, w in zip(values, shares, strict=True)])).astype(np.int8)


def merged(
    xs: Sequence[NDArray[Any]], weights: Sequence[float], thresholds: Sequence[Any], *rule: Any
) -> NDArray[Any]:
    elect, on_tie, divide = rule
    values = [trimmed(x, t).astype(np.float32) for x, t in zip(xs, thresholds, strict=True)]
    by = "frequency" if elect == "frequency" else "total"
    sign = elected(values, weights if elect == "weighted" else None, by)
    sign = np.where(sign == 0, np.int8(on_tie), sign)
    agrees = [np.sign(value) * sign > 0 for value in values]
    shares = np.float32(weights)
    products = [np.where(a, v * w, ZERO) for a, v, w in zip(agrees, values, shares, strict=True)]
    if divide == "max":
        result = products[0]
        for product in products[1:]:
            result = np.where(np.abs(product) > np.abs(result), product, result)
    else:
        result = summed(products)
    if divide == "count":
        result = result / np.maximum(summed(agrees), 1)
    if divide == "weight":
        weight = summed([np.where(a, w, ZERO) for a, w in zip(agrees, shares, strict=True)])
        result = np.where(weight == 0, ZERO, result / np.where(weight == 0, np.float32(1), weight))
    return (result + ZERO).astype(xs[0].dtype)


def tied_weights(random: np.random.Generator, shape: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Small multiples of 1 and of 0.37 with zeros of both signs among them, so that sums tie and cancel."""
    x = random.integers(-3, 4, shape) * random.choice([1, 0.37], shape)
    return np.where(random.random(shape) < 0.2, np.copysign(0, x), x).astype(dtype)


def bits(x: Any) -> tuple[str, tuple[int, ...], bytes]:
    x = np.asarray(x)
    return x.dtype.name, x.shape, x.tobytes()
