"""What merging a module takes, estimated from shapes alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from pamctl.adapters.factors import ModuleShape
from pamctl.merging.cut import Cut, is_large
from pamctl.merging.devices import HOST
from pamctl.merging.group import Group
from pamctl.merging.methods.method import Combination, Elementwise
from pamctl.merging.range_finder import SMALL, searched

PROGRAM = 100 << 20
"""What the program takes before it reads a number: the interpreter, numpy and the libraries."""

_SINGLE, _DOUBLE = 4, 8  # bytes


@dataclass(frozen=True)
class Need:
    """How a module is merged, and what that takes at its peak, in bytes.

    Args:
        streamed: its factors are read and written some rows at a time, never whole.
        held: a dense delta is kept whole, not made anew for each pass over it.
    """

    bytes: int
    streamed: bool = False
    held: bool = False


def need_of(
    group: Group,
    cut: Cut,
    shape: ModuleShape,
    ranks: Sequence[int],
    rank: int,
    most_bytes: int,
    *,
    streams: bool,
) -> Need:
    """The cheapest way of merging a module that fits into `most_bytes`; else the one that needs least.

    Args:
        shape: of the module: its sides.
        ranks: of the inputs.
        rank: of the result.
        streams: whether rows can be written as they come.
    """
    ways = [way for way in _ways(group, cut, shape, ranks, rank) if streams or not way.streamed]
    return next((way for way in ways if way.bytes <= most_bytes), min(ways, key=lambda way: way.bytes))


def size(bytes: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{bytes / 2**20:,.0f} MiB"


def _ways(group: Group, cut: Cut, shape: ModuleShape, ranks: Sequence[int], rank: int) -> list[Need]:
    sides, total = shape.inputs + shape.outputs, sum(ranks)
    inputs, output = _SINGLE * total * sides, _SINGLE * rank * sides
    pieces = (len(ranks) + 4) * _SINGLE * max(HOST.elements, shape.inputs)
    whole = 2 * inputs + output + pieces
    found = 4 * _DOUBLE * searched(rank) * sides
    strip = Need(_streaming(shape, ranks, total) + pieces, streamed=True)
    if group.space == "factor":
        return [Need(whole), *([] if group.is_square_root else [strip])]
    if isinstance(group.work, Combination):
        if not cut.cuts:
            return [Need(whole), *([] if group.work.uses_gram else [strip])]
        if is_large(total, cut) and not group.work.uses_gram:
            return [Need(inputs + max(_SINGLE * max(ranks) * sides, 2 * output) + found)]
        return [Need(whole + _bases(sides, total))]
    if isinstance(group.work, Elementwise):
        dense = _SINGLE * shape.inputs * shape.outputs
        if min(shape.inputs, shape.outputs) <= SMALL:  # decomposed in float64
            return [Need(whole + 12 * dense, held=True)]
        if cut.svd == "full":
            return [Need(whole + 6 * dense, held=True)]
        return [Need(whole + dense + found, held=True), Need(whole + found)]
    core = _DOUBLE * total * total * (len(ranks) + 8)
    coordinates = _SINGLE * min(total, shape.outputs) * shape.inputs * 4
    return [Need(whole + _bases(sides, total) + core + coordinates)]


def _bases(sides: int, total: int) -> int:
    """Factors side by side in float64, and what QR and SVD of them take."""
    return _DOUBLE * total * (5 * sides + 8 * total)


def _streaming(shape: ModuleShape, ranks: Sequence[int], total: int) -> int:
    """One input's module for its fingerprint, or its A for the probes, beside a strip of rows of all."""
    module = _SINGLE * max(ranks) * (shape.inputs + shape.outputs)
    strip = _SINGLE * max(total, 1) * max(HOST.elements // max(total, 1), 1)
    return max(2 * module, 3 * _SINGLE * max(ranks) * shape.inputs) + 2 * strip
