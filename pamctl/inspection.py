"""What is in an adapter, and how two adapters relate, as plain records that can be printed or serialised."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from pamctl.adapters.adapter import Adapter, LoraFactors, ModuleShape
from pamctl.adapters.compatibility import (
    factor_mismatch,
    refuse_different_bases,
    refuse_different_modules,
    share_a_start,
)
from pamctl.adapters.module_names import kind, tower
from pamctl.alignment import compare_signs
from pamctl.merging.low_rank import inner_product, squared_norm
from pamctl.merging.plan import cross_term_error

_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def describe(adapter: Adapter) -> dict[str, Any]:
    """The contents of one adapter: base, record, sizes and norms, by module and by kind within a tower."""
    modules = [
        _module(module, adapter.shapes[module], factors) for module, factors in adapter.modules.items()
    ]
    record = adapter.provenance
    return {
        "name": adapter.name,
        "fingerprint": adapter.fingerprint,
        "base": {"name": adapter.base_model, "fingerprint": adapter.base_fingerprint},
        "provenance": record.to_json() if record else None,
        "parameters": adapter.parameters,
        "bytes": sum(shape.parameters * _BYTES[shape.dtype] for shape in adapter.shapes.values()),
        "ranks": sorted({shape.rank for shape in adapter.shapes.values()}),
        "scales": sorted({module["scale"] for module in modules}),
        "dtypes": sorted({shape.dtype for shape in adapter.shapes.values()}),
        "norm": _root_of_squares(module["norm"] for module in modules),
        "groups": _groups(modules),
        "modules": modules,
    }


def relate(first: Adapter, second: Adapter) -> dict[str, Any]:
    """How two adapters of one base relate: cosines of deltas, signs, and what averaging factors would cost.

    Shares are in percent. `differ` counts all weights of `second` whose sign `first` contradicts, `conflict`
    its 50 % of largest magnitude; both, and the cross-term error, are None where the factors do not fit.

    Raises:
        Refusal: different bases, no module in common, or modules of other sizes.
    """
    refuse_different_bases((first, second))
    refuse_different_modules((first, second))
    mismatch = factor_mismatch((first, second))
    modules: list[dict[str, Any]] = []
    dot, norms = 0.0, [0.0, 0.0]
    for module in sorted(first.shapes.keys() & second.shapes.keys()):
        one, two = first.modules[module], second.modules[module]
        here, squares = inner_product(one, two), (squared_norm(one), squared_norm(two))
        modules.append({"module": module, "cosine": _cosine(here, *squares)})
        dot, norms = dot + here, [total + square for total, square in zip(norms, squares, strict=True)]
    signs = None if mismatch else compare_signs(first, second)[1]
    if signs:
        for entry in modules:
            counts = signs.modules[entry["module"]]
            entry["differ_percent"] = round((counts["a"] + counts["b"]).differ_percent, 4)
    return {
        "name": second.name,
        "fingerprint": second.fingerprint,
        "cosine": _cosine(dot, *norms),
        "norm_ratio": math.sqrt(norms[1] / norms[0]) if norms[0] else None,
        "differ_percent": round(signs.overall.differ_percent, 4) if signs else None,
        "conflict_percent": round(signs.overall.conflict_percent, 4) if signs else None,
        "cross_term_error_percent": None if mismatch else _error_percent(first, second),
        "share_a_start": share_a_start((first, second)),
        "factor_mismatch": mismatch,
        "only_in_first": sorted(first.shapes.keys() - second.shapes.keys()),
        "only_in_second": sorted(second.shapes.keys() - first.shapes.keys()),
        "modules": modules,
    }


def _module(module: str, shape: ModuleShape, factors: LoraFactors) -> dict[str, Any]:
    return {
        "module": module,
        "tower": tower(module),
        "kind": kind(module),
        "rank": shape.rank,
        "inputs": shape.inputs,
        "outputs": shape.outputs,
        "dtype": shape.dtype,
        "scale": factors.scale,
        "norm": math.sqrt(squared_norm(factors)),
        "a_norm": float(np.linalg.norm(factors.a)),
        "b_norm": float(np.linalg.norm(factors.b)),
    }


def _groups(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Modules of one kind in one tower, counted, with the norm of their deltas together."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for module in modules:
        grouped[module["tower"], module["kind"]].append(module)
    return [
        {
            "tower": in_tower,
            "kind": of_kind,
            "modules": len(members),
            "ranks": sorted({member["rank"] for member in members}),
            "norm": _root_of_squares(member["norm"] for member in members),
        }
        for (in_tower, of_kind), members in sorted(grouped.items())
    ]


def _root_of_squares(norms: Iterable[float]) -> float:
    return math.sqrt(sum(norm * norm for norm in norms))


def _cosine(dot: float, first: float, second: float) -> float | None:
    return dot / math.sqrt(first * second) if first and second else None


def _error_percent(first: Adapter, second: Adapter) -> float | None:
    error = cross_term_error((first, second), (0.5, 0.5))
    return round(100 * error, 4) if math.isfinite(error) else None
