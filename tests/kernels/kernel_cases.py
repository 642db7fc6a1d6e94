"""Random weights with everything that breaks a threshold, and the answer by sorting."""

from decimal import ROUND_CEILING, Decimal
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
_INFINITY = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
_SMALLEST_NORMAL = {"float32": 0x00800000, "float16": 0x0400, "bfloat16": 0x0080}


def random_weights(random: np.random.Generator, shape: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Normal, tied, constant, mostly zero, subnormal or any finite bits; random signs, of zeros too."""
    integer = np.int32 if dtype.itemsize == 4 else np.int16
    kind = random.choice(["normal", "ties", "constant", "zeros", "subnormal", "bits"])
    if kind in ("normal", "zeros"):
        magnitude = np.abs(random.standard_normal(shape, np.float32).astype(dtype))
        if kind == "zeros":
            magnitude *= (random.random(shape) < 0.3).astype(dtype)
    elif kind == "ties":
        magnitude = random.integers(0, 4, shape).astype(dtype)
    elif kind == "constant":
        magnitude = np.full(shape, random.integers(0, 3), dtype)
    else:
        limit = _SMALLEST_NORMAL if kind == "subnormal" else _INFINITY
        magnitude = random.integers(0, limit[dtype.name], shape).astype(integer).view(dtype)
    return np.where(random.random(shape) < 0.5, -magnitude, magnitude).astype(dtype)


def random_top_p(random: np.random.Generator) -> float:
    """A percentage of up to three decimals; the ends often."""
    if random.random() < 0.1:
        return float(random.choice([0, 50, 100]))
    return round(float(random.uniform(0, 100)), int(random.integers(0, 4)))


def random_size(random: np.random.Generator) -> int:
    """1 to 10^6, evenly in the logarithm below 10^4; one in a hundred above."""
    return int(10 ** (random.uniform(4, 6) if random.random() < 0.01 else random.uniform(0, 4)))


def rank(top_p: float, n: int) -> int:
    return int((Decimal(str(top_p)) * n / 100).to_integral_value(ROUND_CEILING))


def sorted_threshold(x: np.ndarray, top_p: float) -> float:
    """The k-th largest |x| by a sort, in float64, which holds every value exactly."""
    k = rank(top_p, x.size)
    return float(np.sort(np.abs(x.astype(np.float64)), axis=None)[x.size - k]) if k else np.inf
