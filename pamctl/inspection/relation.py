"""How two adapters of one base relate: by their deltas, their signs, their directions and their start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import (
    factor_mismatch,
    share_a_start,
)
from pamctl.adapters.factors import LoraFactors
from pamctl.adapters.fingerprint import module_digest
from pamctl.adapters.matching import brought_together
from pamctl.alignment import AlignmentReport, compare_signs
from pamctl.inspection.contents import over_modules
from pamctl.inspection.delta_signs import (
    MOST_EXACT,
    SAMPLED,
    SEED,
    DeltaSigns,
    conflict_shares,
    count_delta_signs,
)
from pamctl.inspection.spectrum import Float64, cross_gram, directions, gram


@dataclass(frozen=True)
class Related:
    """What one reading of a module of both adapters gives.

    Args:
        dot: the sum of the products of the two deltas' weights.
        squares: the squared norms of the two deltas.
        cross_term: the squared norm of what averaging the factors gets wrong, where the ranks are equal.
        left: the overlap of the spaces that the deltas' columns span, None where a delta is 0.
        right: the same of their rows.
        signs: None where a delta is 0.
        digests: of the two modules.
    """

    dot: float
    squares: tuple[float, float]
    cross_term: float | None
    left: float | None
    right: float | None
    signs: DeltaSigns | None
    digests: tuple[bytes, bytes]

    @property
    def cosine(self) -> float | None:
        return _cosine(self.dot, *self.squares)

    @property
    def mean_square(self) -> float:
        """The squared norm of the mean of the two deltas."""
        return max(sum(self.squares) + 2 * self.dot, 0.0) / 4


def relate(first: Adapter, second: Adapter) -> dict[str, Any]:
    """How two adapters of one base relate, as `pamctl inspect --json` prints it, on the modules they share.

    - `cosine`, `norm_ratio` of the deltas, all weights together;
    - `overlap_left`, `overlap_right`: ‖Q1ᵀ Q2‖² / min(rank 1, rank 2), where Q is an orthonormal basis of the
      columns (rows) of a delta and rank the number of its directions: 1 where the one space holds the other,
      0 where they are orthogonal; over all modules the mean;
    - `delta_signs`: the percentage of the deltas' weights that differ in sign, that which chance explains at
      the modules' cosines, arccos(cosine) / π, and the excess; `method` says whether all weights were
      counted or a sample, whose standard error is given;
    - `differ_percent`: of all weights of the factors of `second`, those whose sign `first` contradicts, and
      `conflict_percent`: of its 50 % of largest magnitude (PAM);
    - `cross_term_error_percent`: how far the mean of the factors is from that of the deltas, relative to it.

    The last three are None where the factors do not fit. A figure is None where a delta of 0 leaves it
    undefined.

    Raises:
        Refusal: different bases, no module in common, modules of other sizes, or an id that fits two.
    """
    first, second = brought_together((first, second))
    shared = [module for module in first.shapes if module in second.shapes]
    exact = sum(first.shapes[name].inputs * first.shapes[name].outputs for name in shared) <= MOST_EXACT
    related = over_modules(
        shared, lambda name: relate_module(name, first.modules[name], second.modules[name], exact=exact)
    )
    for which, adapter in enumerate((first, second)):
        if len(shared) == len(adapter.shapes):
            adapter.fingerprint_of({name: each.digests[which] for name, each in related.items()})
    mismatch = factor_mismatch((first, second))
    signs = None if mismatch else compare_signs(first, second)[1]
    every = list(related.values())
    squares = [sum(each.squares[which] for each in every) for which in (0, 1)]
    return {
        "name": second.name,
        "fingerprint": second.fingerprint,
        "shared_modules": len(shared),
        "cosine": _cosine(sum(each.dot for each in every), squares[0], squares[1]),
        "norm_ratio": math.sqrt(squares[1] / squares[0]) if squares[0] else None,
        "overlap_left": _mean([each.left for each in every]),
        "overlap_right": _mean([each.right for each in every]),
        "delta_signs": {
            "method": "exact" if exact else "sample",
            **({} if exact else {"seed": SEED, "weights_a_module": SAMPLED}),
            **_conflicts([each.signs for each in every]),
        },
        "differ_percent": round(signs.overall.differ_percent, 4) if signs else None,
        "conflict_percent": round(signs.overall.conflict_percent, 4) if signs else None,
        "cross_term_error_percent": None if mismatch else _cross_term_percent(every),
        "share_a_start": share_a_start((first, second)),
        "factor_mismatch": mismatch,
        "only_in_first": [module for module in first.shapes if module not in second.shapes],
        "only_in_second": [module for module in second.shapes if module not in first.shapes],
        "modules": [_module(name, each, signs) for name, each in related.items()],
    }


def relate_module(name: str, one: LoraFactors, two: LoraFactors, *, exact: bool) -> Related:
    """Compare one module; `exact` is that of `count_delta_signs`."""
    grams, (cross_a, cross_b) = (gram(one), gram(two)), cross_gram(one, two)
    dot = float(np.sum(cross_a * cross_b))
    squares = tuple(max(float(np.sum(a * b)), 0.0) for a, b in grams)
    digests = module_digest(one), module_digest(two)
    cosine = _cosine(dot, squares[0], squares[1])
    signs = None
    if cosine is not None:
        # the draw is the same whichever adapter is named first
        key = b"".join([name.encode(), b"\0", *sorted(digests)])
        signs = count_delta_signs(one, two, cosine, exact=exact, key=key)
    here, there = directions(*grams[0]), directions(*grams[1])
    return Related(
        dot,
        (squares[0], squares[1]),
        _cross_term(grams, cross_a, cross_b) if one.rank == two.rank else None,
        _overlap(here.left, cross_b, there.left),
        _overlap(here.right, cross_a, there.right),
        signs,
        digests,
    )


def _overlap(one: Float64, cross: Float64, two: Float64) -> float | None:
    """‖Q1ᵀ Q2‖² / min(rank 1, rank 2) of bases that combine factors whose products are `cross`."""
    fewest = min(one.shape[1], two.shape[1])
    return min(float(np.sum((one.T @ cross @ two) ** 2)) / fewest, 1.0) if fewest else None


def _cross_term(grams: Sequence[tuple[Float64, Float64]], cross_a: Float64, cross_b: Float64) -> float:
    """The squared norm of mean(b a) - mean(b) mean(a), which for two is (b1 - b2) (a1 - a2) / 4."""
    (a1, b1), (a2, b2) = grams
    return max(float(np.sum((a1 + a2 - cross_a - cross_a.T) * (b1 + b2 - cross_b - cross_b.T))), 0.0) / 16


def _cross_term_percent(modules: Sequence[Related]) -> float | None:
    wrong = sum(each.cross_term or 0.0 for each in modules)
    right = sum(each.mean_square for each in modules)
    if not wrong:
        return 0.0
    return round(100 * math.sqrt(wrong / right), 4) if right else None


def _conflicts(modules: Sequence[DeltaSigns | None]) -> dict[str, float | None]:
    shares = conflict_shares([module for module in modules if module])
    names = ("conflict", "gaussian", "excess", "standard_error")
    return {f"{name}_percent": round(100 * getattr(shares, name), 4) if shares else None for name in names}


def _module(name: str, related: Related, signs: AlignmentReport | None) -> dict[str, Any]:
    one, two = related.squares
    record: dict[str, Any] = {
        "module": name,
        "cosine": related.cosine,
        "norm_ratio": math.sqrt(two / one) if one else None,
        "overlap_left": related.left,
        "overlap_right": related.right,
        "delta_signs": _conflicts([related.signs]),
    }
    if signs:
        counts = signs.modules[name]["a"] + signs.modules[name]["b"]
        record["differ_percent"] = round(counts.differ_percent, 4)
        record["conflict_percent"] = round(counts.conflict_percent, 4)
        record["cross_term_error_percent"] = _cross_term_percent([related])
    return record


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cosine(dot: float, first: float, second: float) -> float | None:
    return min(max(dot / math.sqrt(first) / math.sqrt(second), -1.0), 1.0) if first and second else None
