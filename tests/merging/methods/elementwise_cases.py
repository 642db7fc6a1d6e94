"""What the tests of element-wise methods share: a merge as the engine does it, with draws that are known."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pamctl.merging.methods.method import Elementwise, Float32, Method, Piece

SEEDS = st.integers(0, 500)
COUNTS = st.integers(1, 4)

Tensor = Sequence[Any]
"""One tensor of each input; None for an input that lacks it."""

ONE = np.array([[4, -1, 2], [0.5, -3, 1.5]], np.float32)
OTHER = np.array([[-2.5, -2, 1], [1.5, 3, -6]], np.float32)
PAIR = [ONE, OTHER]
"""They agree at three places, differ at three, and cancel at one of these."""


def random_inputs(seed: int, count: int, shape: tuple[int, int] = (5, 8)) -> list[Float32]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def matrix(*rows: Sequence[float]) -> Float32:
    return np.array(rows, np.float32)


def settings_for(method: Method, inputs: int, **given: Any) -> dict[str, Any]:
    """Every parameter by name as the engine hands them over; `lambda_` stands for lambda."""
    given = {name.removesuffix("_"): value for name, value in given.items()}
    variant = given.pop("variant", method.variants[0] if method.variants else None)
    settings = {each.name: each.default_of(variant) for each in method.parameters} | given
    for each in method.parameters:
        if each.per_adapter and not isinstance(settings[each.name], tuple):
            settings[each.name] = (settings[each.name],) * inputs
    assert set(settings) == {each.name for each in method.parameters}
    return settings | ({"variant": variant} if variant else {})


@dataclass(frozen=True)
class Pieces:
    """A stream of tensors in pieces of some rows; numbers are drawn as given, or from what the input is."""

    tensors: Sequence[Tensor]
    rows: int
    draws: Sequence[Any] | None
    seed: int
    array: Callable[[Float32], Any]

    def __iter__(self) -> Iterator[Piece]:
        for tensor in self.tensors:
            yield from self.of_tensor(tensor)

    def of_tensor(self, tensor: Tensor) -> Iterator[Piece]:
        present = tuple(i for i, x in enumerate(tensor) if x is not None)
        numbers = self.draws or [drawn(self.seed, x) if x is not None else None for x in tensor]
        for start in range(0, tensor[present[0]].shape[0], self.rows):
            rows = slice(start, start + self.rows)
            drawn_here = [self.array(numbers[i][rows]) for i in present]
            blocks = [self.array(tensor[i][rows]) for i in present]
            yield Piece(blocks, drawn_here.__getitem__, None if len(present) == len(tensor) else present)


def drawn(seed: int, x: Float32) -> Float32:
    key = hashlib.sha256(np.abs(x).tobytes()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(key)]).random(x.shape, np.float32)


def merged_all(
    method: Method,
    tensors: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    *,
    rows: int = 1000,
    draws: Sequence[Any] | None = None,
    seed: int = 0,
    array: Callable[[Float32], Any] = np.asarray,
    **given: Any,
) -> list[Float32]:
    """Every tensor merged, the scope being all of them."""
    inputs = len(tensors[0])
    shares = np.ones(inputs) if weights is None else np.asarray(weights, np.float64)
    shares = shares / shares.sum() if method.shares else shares
    settings = settings_for(method, inputs, **given)
    assert isinstance(method.work, Elementwise)
    stream = Pieces(tensors, rows, draws, seed, array)
    untouched = [x.copy() for tensor in tensors for x in tensor if x is not None]
    measured = method.work.measure(stream, shares, settings) if method.work.measure else None
    results = []
    for tensor in tensors:
        blocks = [method.work.merge(piece, shares, settings, measured) for piece in stream.of_tensor(tensor)]
        assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
        results.append(np.concatenate([np.asarray(block) for block in blocks]))
    given_now = [x for tensor in tensors for x in tensor if x is not None]
    assert all(old.tobytes() == new.tobytes() for old, new in zip(untouched, given_now, strict=True))
    return results


def merged(
    method: Method, inputs: Sequence[Float32], weights: Sequence[float] | None = None, **given: Any
) -> Float32:
    """One tensor merged."""
    return merged_all(method, [inputs], weights, **given)[0]
