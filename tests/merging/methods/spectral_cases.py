"""Random adapters of one module in shared bases, and the dense delta that a spectral method makes of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pamctl.merging.methods.method import Bases, Method, Spectral

Float64 = NDArray[np.float64]
Factors = tuple[Float64, Float64]


def random_factors(seed: int, ranks: Sequence[int], outputs: int = 12, inputs: int = 9) -> list[Factors]:
    """One (b, a) an input, (outputs, rank) and (rank, inputs), with the scale in b."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((outputs, r)), rng.standard_normal((r, inputs))) for r in ranks]


def factors_of(*deltas: Any) -> list[Factors]:
    """Factors of matrices written out in a test."""
    return [(np.asarray(delta, np.float64), np.eye(len(delta[0]))) for delta in deltas]


def dense(factors: Sequence[Factors]) -> list[Float64]:
    return [b @ a for b, a in factors]


def bases_of(factors: Sequence[Factors], turn: int | None = None) -> Bases:
    """The factors in bases from QR, or in those turned by random rotations."""
    left = np.linalg.qr(np.hstack([b for b, _ in factors]))[0]
    right = np.linalg.qr(np.vstack([a for _, a in factors]).T)[0]
    if turn is not None:
        left, right = turned(left, turn), turned(right, turn + 1)
    return Bases(left, right, [left.T @ b for b, _ in factors], [a @ right for _, a in factors])


def turned(basis: Float64, seed: int) -> Float64:
    size = basis.shape[1]
    rotation: Float64 = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    return basis @ rotation


def settings_of(method: Method, given: dict[str, Any]) -> dict[str, Any]:
    return {each.name: each.default_of(None) for each in method.parameters} | given


def merged(
    method: Method,
    factors: Sequence[Factors],
    weights: Sequence[float] | None = None,
    turn: int | None = None,
    **settings: Any,
) -> Float64:
    """The dense delta that a spectral method makes; a keyword `lambda_` is the parameter `lambda`."""
    assert isinstance(method.work, Spectral)
    bases = bases_of(factors, turn)
    given = np.asarray([1.0] * len(factors) if weights is None else weights, np.float64)
    if method.shares:
        given = given / given.sum()
    shape = factors[0][0].shape[0], factors[0][1].shape[1]
    values = settings_of(method, {name.rstrip("_"): value for name, value in settings.items()})
    return bases.left @ method.work.merge(bases.cores(), given, values, shape) @ bases.right.T
