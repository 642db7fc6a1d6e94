"""What the adapters of a stage tell of each other: conflicts, distance, sparsity, what merging gets wrong."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pamctl.adapters import Adapter
from pamctl.alignment import AlignmentReport, Scope, compare_signs
from pamctl.evaluation.conflicts import SCHEMA as SCHEMA
from pamctl.merging.relation import Relation, cross_term
from pamctl.refusal import Refusal

EVERYTHING = 100.0
"""The top_p at which every global weight that is not 0 is important."""
SHARES = (0.5, 0.5)


def diagnostics(
    before: Adapter, trained: Adapter, state: Adapter, top_p: float, scope: Scope, *, merged: bool
) -> dict[str, Any]:
    """What one stage tells.

    Args:
        before: the global adapter W_G that the task began with.
        trained: the task adapter W' before merging.
        state: the global adapter after the task.
        top_p, scope: the method's, by which important weights are told apart.

    Returns:
        conflicts: the sign counts of W' against W_G, `important` by top_p and scope and `all` by top_p 100,
            overall, per factor and per module; a conflict is what alignment would put back.
        protected_percent: of A and of B, how much of W_G is important.
        zeros_percent: of W_G's A and B before and after the task.
        distance: ||W' - W_G|| / ||W_G||, of A and of B.
        cross_term_error_percent: how far the mean of the factors is from that of the deltas.
        not_compared: why the two are not compared weight by weight, else None.
    """
    found: dict[str, Any] = {
        "top_p": top_p,
        "scope": scope,
        "zeros_percent": {"before": _zeros(before), "after": _zeros(state)},
        "conflicts": None,
        "protected_percent": None,
        "distance": None,
        "cross_term_error_percent": None,
        "not_compared": None,
    }
    try:
        _, important = compare_signs(trained, before, top_p, scope)
        _, everything = compare_signs(trained, before, EVERYTHING)
    except Refusal as refusal:
        return found | {"not_compared": refusal.what}
    return found | {
        "conflicts": {"important": important.to_json(), "all": everything.to_json()},
        "protected_percent": _protected(important),
        "distance": _distances(trained, before),
        "cross_term_error_percent": _cross_term_error(before, trained) if merged else None,
    }


def _protected(report: AlignmentReport) -> Mapping[str, float]:
    return {
        factor: _rounded(100 * counts.important / counts.weights if counts.weights else 0.0)
        for factor, counts in report.factors.items()
    }


def _zeros(adapter: Adapter) -> Mapping[str, float]:
    sizes, zeros = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for factors in adapter.modules.values():
        for part, tensor in (("a", factors.a), ("b", factors.b)):
            sizes[part] += tensor.size
            zeros[part] += tensor.size - int(np.count_nonzero(tensor))
    return {part: _rounded(100 * zeros[part] / sizes[part]) for part in sizes}


def _distances(trained: Adapter, before: Adapter) -> Mapping[str, float | None]:
    moved, size = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}
    for module in before.modules:
        new, old = trained.modules[module].folded(), before.modules[module].folded()
        for part, after, then in (("a", new.a, old.a), ("b", new.b, old.b)):
            moved[part] += float(np.square(after - then, dtype=np.float64).sum())
            size[part] += float(np.square(then, dtype=np.float64).sum())
    return {part: _rounded(math.sqrt(moved[part] / size[part])) if size[part] else None for part in moved}


def _cross_term_error(before: Adapter, trained: Adapter) -> float | None:
    relation = sum(
        (
            Relation(*cross_term([before.modules[module].folded(), trained.modules[module].folded()], SHARES))
            for module in before.modules
        ),
        Relation(),
    )
    error = relation.cross_term_error
    return None if error is None or not math.isfinite(error) else _rounded(100 * error)


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")
