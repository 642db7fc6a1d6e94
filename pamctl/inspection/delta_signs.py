"""How often two deltas pull a weight in opposite directions, beside how often chance alone would have them.

Two centred Gaussian numbers whose correlation is c differ in sign with probability arccos(c) / π (Sheppard,
1899). What deltas differ beyond that at their cosine is conflict that their cosine does not show.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pamctl.adapters.factors import Float32, LoraFactors

MOST_EXACT = 1 << 27
"""Weights of two adapters' common modules up to which all are computed, in about a second."""

SAMPLED = 4096
"""Weights drawn from each module where there are more."""

SEED = 0
_BLOCK = 1 << 20  # weights of the delta that are computed at a time


@dataclass(frozen=True)
class DeltaSigns:
    """What was counted in one module.

    Args:
        weights: of the module's delta.
        counted: those looked at.
        both: those of them that are 0 in neither delta.
        conflicts: those of them whose signs differ.
        gaussian: the share of conflicts that chance explains at the deltas' cosine.
    """

    weights: int
    counted: int
    both: int
    conflicts: int
    gaussian: float

    @property
    def share(self) -> float:
        return self.conflicts / self.both


@dataclass(frozen=True)
class ConflictShares:
    """Shares of the weights that are 0 in neither delta, over one module or several.

    Args:
        conflict: whose signs differ.
        gaussian: of which chance explains so many.
        standard_error: of `conflict`, and so of the excess; 0 where all weights were counted.
    """

    conflict: float
    gaussian: float
    standard_error: float

    @property
    def excess(self) -> float:
        return self.conflict - self.gaussian


def count_delta_signs(
    one: LoraFactors, two: LoraFactors, cosine: float, *, exact: bool, key: bytes
) -> DeltaSigns:
    """Compare the signs of two deltas of one module.

    Args:
        cosine: of the two deltas.
        exact: compute every weight, block by block; else draw `SAMPLED` of them, with replacement.
        key: decides the draw, together with `SEED`: a counter-based one, of no order.
    """
    both = opposite = counted = 0
    pairs = _all(one, two) if exact else _drawn(one, two, key)
    for here, there in pairs:
        present = (here != 0) & (there != 0)
        both += int(np.count_nonzero(present))
        opposite += int(np.count_nonzero((np.signbit(here) ^ np.signbit(there)) & present))
        counted += here.size
    if one.scale * two.scale < 0:
        opposite = both - opposite
    gaussian = math.acos(min(max(cosine, -1.0), 1.0)) / math.pi
    return DeltaSigns(one.b.shape[0] * one.a.shape[1], counted, both, opposite, gaussian)


def conflict_shares(modules: Iterable[DeltaSigns]) -> ConflictShares | None:
    """The shares over modules, each of the weight of its size; None where no weight is in both deltas."""
    known = [module for module in modules if module.both]
    sizes = [module.weights * module.both / module.counted for module in known]
    whole = sum(sizes)
    if not whole:
        return None
    parts = [size / whole for size in sizes]
    variance = sum(
        part**2 * module.share * (1 - module.share) / module.both
        for part, module in zip(parts, known, strict=True)
        if module.counted < module.weights
    )
    return ConflictShares(
        sum(part * module.share for part, module in zip(parts, known, strict=True)),
        sum(part * module.gaussian for part, module in zip(parts, known, strict=True)),
        math.sqrt(variance),
    )


def _all(one: LoraFactors, two: LoraFactors) -> Iterable[tuple[Float32, Float32]]:
    rows = max(_BLOCK // one.a.shape[1], 1)
    for start in range(0, one.b.shape[0], rows):
        yield one.b[start : start + rows] @ one.a, two.b[start : start + rows] @ two.a


def _drawn(one: LoraFactors, two: LoraFactors, key: bytes) -> Iterable[tuple[Float32, Float32]]:
    outputs, inputs = one.b.shape[0], one.a.shape[1]
    if outputs * inputs <= SAMPLED:
        yield from _all(one, two)
        return
    digest = hashlib.sha256(b"%d\0" % SEED + key).digest()
    draw = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    rows, columns = draw.integers(0, outputs, SAMPLED), draw.integers(0, inputs, SAMPLED)
    yield tuple(np.einsum("nr,rn->n", each.b[rows], each.a[:, columns]) for each in (one, two))
