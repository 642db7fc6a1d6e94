"""One module merged in factor space, in delta space or in a core."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pamctl.adapters.factors import Float32, LoraFactors
from pamctl.merging.cut import Cut, Kept, is_large
from pamctl.merging.group import Group
from pamctl.merging.low_rank import compress, concatenate, decomposed, inner_product, shared_bases
from pamctl.merging.methods.method import Combination, Elementwise, Float64, Projected, Spectral
from pamctl.merging.range_finder import Matrix, Rows, SumOfDeltas, approximated
from pamctl.merging.tensors import Tensors, merged_piece

Outcome = tuple[LoraFactors, Kept | None]
"""The merged factors, and what cutting their rank kept; None where it was not cut."""


def merged_factor(group: Group, tensors: Tensors, weights: Float64, known: Any) -> Float32:
    """One factor of a module in factor space, whole; `known` is what the method measured of its scope."""
    assert isinstance(group.work, Combination | Elementwise)
    if isinstance(group.work, Combination) and known is not None:  # the kernel works in blocks by itself
        tensors = replace(tensors, elements=math.prod(tensors.shape))
    merged = [
        merged_piece(group.work, piece, weights, group.settings, known) for _, piece in tensors.pieces()
    ]
    return np.concatenate(merged) if len(merged) > 1 else np.asarray(merged[0])


def combined(group: Group, factors: Sequence[LoraFactors], cut: Cut) -> Outcome:
    """The sum of the deltas with the method's coefficients, as factors side by side."""
    assert isinstance(group.work, Combination)
    weights, settings = np.asarray(group.weights), group.settings
    by_row = group.work.by_row(settings)
    gram = None
    if group.work.uses_gram:
        gram = _gram_by_row(factors) if by_row else _gram(factors)
    coefficients = group.work.coefficients(gram, weights, settings)
    if by_row:
        rows = [
            replace(each, b=each.b * coefficients[:, i : i + 1].astype(np.float32))
            for i, each in enumerate(factors)
        ]
        summed = concatenate(rows, [1.0] * len(rows))
    else:
        if is_large(sum(each.rank for each in factors), cut):
            return _factored(SumOfDeltas(factors, [float(coefficient) for coefficient in coefficients]), cut)
        summed = concatenate(factors, [float(coefficient) for coefficient in coefficients])
    is_within = cut.energy is None and summed.rank <= (cut.rank or 0)
    if not cut.cuts or (is_within and not settings.get("clamp")):
        return summed, None
    return compress(summed, cut)


def _factored(matrix: Matrix, cut: Cut) -> Outcome:
    """The best factors of a matrix, on the host."""
    b, a, kept = approximated(matrix, cut)
    return signed(LoraFactors(np.asarray(a, np.float32), np.asarray(b, np.float32))), kept


def _gram(factors: Sequence[LoraFactors]) -> Float64:
    products = [[inner_product(one, two) if i <= j else 0.0 for j, two in enumerate(factors)]
                for i, one in enumerate(factors)]  # fmt: skip
    upper = np.asarray(products)
    return np.triu(upper) + np.triu(upper, 1).T


def _gram_by_row(factors: Sequence[LoraFactors]) -> Float64:
    """The inner products of each output row of the deltas, (outputs, N, N)."""
    outputs, count = factors[0].b.shape[0], len(factors)
    gram = np.empty((outputs, count, count))
    for i, one in enumerate(factors):
        for j, two in enumerate(factors[: i + 1]):
            inputs = one.a.astype(np.float64) @ two.a.astype(np.float64).T
            products = np.einsum("mr,mr->m", one.b.astype(np.float64) @ inputs, two.b.astype(np.float64))
            gram[:, i, j] = gram[:, j, i] = one.scale * two.scale * products
    return gram


def dense(group: Group, tensors: Tensors, known: Any, cut: Cut, *, held: bool) -> Outcome:
    """An elementwise merge of the deltas, and the best factors of it at a rank.

    Args:
        held: keep the merged delta; else it is made anew, some rows at a time, for each pass over it.
    """
    assert isinstance(group.work, Elementwise)
    work, weights = group.work, np.asarray(group.weights)

    def blocks() -> Iterator[tuple[slice, Any]]:
        for rows, piece in tensors.pieces():
            yield rows, merged_piece(work, piece, weights, group.settings, known)

    merged = list(blocks()) if held else None
    matrix = Rows(lambda: iter(merged) if merged is not None else blocks(), tensors.shape)
    return _factored(matrix, cut)


def projected_tensors(group: Group, factors: Sequence[LoraFactors]) -> tuple[list[LoraFactors], Any]:
    """The inputs of a projected method in its coordinates, each a product of factors, and the way back."""
    assert isinstance(group.work, Projected)
    coordinates = group.work.project(shared_bases(factors), group.settings)
    products = [LoraFactors(a.astype(np.float32), b.astype(np.float32)) for b, a in coordinates.factors]
    return products, coordinates


def projected(group: Group, tensors: Tensors, coordinates: Any, known: Any, cut: Cut) -> Outcome:
    """Another method in other coordinates, restored to factors of the module."""
    weights, acting = np.asarray(group.weights), group.acting.work
    assert isinstance(acting, Combination | Elementwise)
    merged = np.empty(tensors.shape, np.float32)
    for rows, piece in tensors.pieces():
        merged[rows] = merged_piece(acting, piece, weights, group.settings, known)
    b, a = coordinates.restore(merged.astype(np.float64))
    result = LoraFactors(a.astype(np.float32), b.astype(np.float32))
    return compress(result, cut)


def spectral(group: Group, factors: Sequence[LoraFactors], cut: Cut) -> Outcome:
    """A merge of the cores."""
    assert isinstance(group.work, Spectral)
    bases = shared_bases(factors)
    shape = (factors[0].b.shape[0], factors[0].a.shape[1])
    core = group.work.merge(bases.cores(), np.asarray(group.weights), group.settings, shape)
    return decomposed(core, bases, cut)


def clamped(factors: LoraFactors, quantile: float) -> LoraFactors:
    """Both factors held to a quantile of their pooled numbers, the singular values being in b, as in peft.

    Args:
        factors: with the singular values in halves, as they come from `decomposed`.
    """
    root = np.linalg.norm(factors.b, axis=0)
    b, a = factors.b * root, factors.a / np.where(root > 0, root, np.float32(1))[:, None]
    limit = np.quantile(np.concatenate([a.reshape(-1), b.reshape(-1)]), quantile).astype(np.float32)
    return replace(factors, a=np.clip(a, -limit, limit), b=np.clip(b, -limit, limit))


def signed(factors: LoraFactors) -> LoraFactors:
    """The same delta, the entry of largest magnitude in each column of b positive."""
    largest = factors.b[np.abs(factors.b).argmax(axis=0), np.arange(factors.rank)]
    signs = np.where(largest < 0, np.float32(-1), np.float32(1))
    return replace(factors, a=factors.a * signs[:, None], b=factors.b * signs)
