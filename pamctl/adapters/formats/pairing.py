"""The two factors of a module in a file: checked for fit and brought to (rank, in) and (out, rank)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pamctl.adapters.factors import (
    EMBEDDING,
    LINEAR,
    ComputedModules,
    Float32,
    Layer,
    LoraFactors,
    ModuleShape,
    Part,
    computed,
    folded,
)
from pamctl.adapters.tensor_file import TensorFile
from pamctl.refusal import Refusal

LEAST_SCALE, MOST_SCALE = 2.0**-126, 2.0**127
"""In magnitude: what float32 holds without loss."""


@dataclass(frozen=True)
class FactorPair:
    """Where one module's factors are in a file.

    Args:
        path: the module as the file spells it, for messages.
        a: the name of the tensor that is applied first, (rank, in[, *kernel]).
        b: the name of the other, (out, rank[, 1...]).
        scale: as resolved from the format's settings; `a` and `b` are without it.
        transposed: the file holds (in, rank) and (rank, out).
        embedding: the columns of `a` are a vocabulary.
        mid: a Tucker core (rank, rank, *kernel) between them, `a` and `b` then being of kernel 1.
    """

    path: str
    a: str
    b: str
    scale: float
    transposed: bool = False
    embedding: bool = False
    mid: str | None = None


def paired_modules(tensors: TensorFile, pairs: Mapping[str, FactorPair]) -> ComputedModules:
    """The modules of a file by canonical id, their numbers unread.

    Raises:
        Refusal: a shape or dtype with which the two tensors are not the factors of one module.
    """
    shapes = {module: _shape(tensors, pair) for module, pair in pairs.items()}

    def factors(module: str) -> LoraFactors:
        pair, shape = pairs[module], shapes[module]
        a, b = tensors.read(pair.a), tensors.read(pair.b)
        if pair.transposed:
            a, b = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        if pair.mid is not None:
            # delta = b @ mid @ a, so that mid @ a is the one factor of a plain convolution
            a = np.einsum("pqk,qi->pik", _flat_kernel(tensors.read(pair.mid)), a.astype(np.float64))
            a = np.ascontiguousarray(a.reshape(a.shape[0], -1), np.float32)
        return LoraFactors(a, b, pair.scale, shape.layer)

    def some_rows(module: str, part: Part, rows: slice) -> Float32:
        pair = pairs[module]
        if pair.transposed or pair.mid is not None:
            whole = factors(module).folded()
            return (whole.a if part == "a" else whole.b)[rows]
        values = tensors.read(pair.a if part == "a" else pair.b, rows)
        values = values.reshape(values.shape[0], -1)
        return values if part == "a" or pair.scale == 1.0 else folded(values, pair.scale)

    return ComputedModules(shapes, factors, some_rows)


def _flat_kernel(mid: np.ndarray) -> np.ndarray:
    return mid.reshape(*mid.shape[:2], -1).astype(np.float64)


def _shape(tensors: TensorFile, pair: FactorPair) -> ModuleShape:
    named = [name for name in (pair.a, pair.b, pair.mid) if name is not None]
    for name in named:
        tensors.dtype_of(name)  # refused before the numbers are asked for
    a, b = tensors[pair.a].shape, tensors[pair.b].shape
    _refuse_groups(tensors, pair)
    if pair.transposed:
        a, b = a[::-1], b[::-1]
    kernel = a[2:]
    fits = len(a) == len(b) and 2 <= len(a) <= 5 and a[0] == b[1] and 0 not in a + b and set(b[2:]) <= {1}
    if pair.mid is None:
        rank = a[0] if fits else 0
    else:
        mid = tensors[pair.mid].shape
        fits = 3 <= len(a) == len(b) <= 5 and set(a[2:] + b[2:]) <= {1} and mid[:2] == (b[1], a[0])
        fits = fits and len(mid) == len(a) and 0 not in a + b + mid
        rank, kernel = b[1] if fits else 0, mid[2:]
    if not fits or (kernel and (pair.transposed or pair.embedding)):
        sizes = " and ".join(f"{name} {list(tensors[name].shape)}" for name in named)
        raise Refusal(
            f"{tensors.path}: {sizes} are not the factors of one module",
            "they should be (rank, inputs) and (outputs, rank): fetch or save the adapter again",
        )
    layer = EMBEDDING if pair.embedding else Layer("conv", kernel) if kernel else LINEAR
    dtypes = {tensors[name].dtype for name in named}
    dtype = dtypes.pop() if len(dtypes) == 1 and pair.mid is None else computed(dtypes)
    return ModuleShape(rank, a[1] * math.prod(kernel), b[0], dtype, layer, pair.scale)


def _refuse_groups(tensors: TensorFile, pair: FactorPair) -> None:
    """Refuse a grouped convolution: peft's A has all its rows, its B those of one group."""
    a, b = tensors[pair.a].shape, tensors[pair.b].shape
    if pair.mid is None and 3 <= len(a) == len(b) and 0 < b[1] < a[0] and a[0] % b[1] == 0:
        raise Refusal(
            f"{tensors.path}: {pair.path} is a convolution in {a[0] // b[1]} groups ({pair.a} {list(a)}, "
            f"{pair.b} {list(b)})",
            "its delta is not b @ a: train without this module",
        )
