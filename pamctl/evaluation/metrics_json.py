"""The numbers of a report as one JSON object, in full precision: what `metrics.json` and `--json` hold."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pamctl.evaluation.baseline import CellChange, Changes
from pamctl.evaluation.by_type import scores_by_type, unread_answers
from pamctl.evaluation.curves import mean_curves
from pamctl.evaluation.matrix import AccuracyMatrix
from pamctl.evaluation.metrics import FORGETTING, FWT_VARIANTS, IDENTITY, METRICS, definitions
from pamctl.evaluation.summary import DDOF, Comparison, Paired, Spread

if TYPE_CHECKING:
    from pamctl.evaluation.report import Report


def metrics_json(report: "Report") -> dict[str, Any]:
    """Everything a report tells; null where a cell is missing, or a metric not defined."""
    checked, matrices = report.checked
    return {
        "definitions": definitions(report.fwt),
        "fwt": {"shown": report.fwt, "variants": dict(FWT_VARIANTS)},
        "forgetting": dict(FORGETTING),
        "identity": {"formula": IDENTITY, "checked": checked, "matrices": matrices},
        "std": f"population, ddof {DDOF}, over orders and seeds",
        "comparisons": [_comparison(comparison, report) for comparison in report.comparisons],
        "conflicts": [asdict(conflicts) for conflicts in report.conflicts],
        "curves": [asdict(curve) for curve in mean_curves(report.curves)],
        "notes": list(report.notes),
    }


def _comparison(comparison: Comparison, report: "Report") -> dict[str, Any]:
    changes = report.changes(comparison)
    return {
        "tasks": list(comparison.tasks),
        "zero_shot": comparison.zero_shot(),
        "systems": [_system(comparison, system) for system in comparison.systems],
        "against": report.against_in(comparison),
        "paired": [_paired(pair) for pair in report.pairs(comparison)],
        "types": {
            task: {system: _spreads(scores) for system, scores in own.items()}
            for task, own in scores_by_type(comparison).items()
        },
        "unread_percent": {task: _spreads(own) for task, own in unread_answers(comparison).items()},
        "baseline": None if changes is None else _changes(changes),
        "sequences": [_sequence(comparison, matrix) for matrix in comparison.matrices],
    }


def _system(comparison: Comparison, system: str) -> dict[str, Any]:
    return {
        "system": system,
        "metrics": _spreads({metric: comparison.spread(system, metric) for metric in METRICS}),
        "fwt": _spreads(comparison.forward_transfers(system)),
        "forgetting": _each(comparison.forgetting(system)),
        "forgetting_from_best": _each(comparison.forgetting_from_best(system)),
    }


def _spreads(found: Mapping[str, Spread | None]) -> dict[str, Any]:
    return {name: spread and asdict(spread) for name, spread in found.items()}


def _each(found: Sequence[Spread | None]) -> list[Any]:
    return [spread and asdict(spread) for spread in found]


def _paired(pair: Paired) -> dict[str, Any]:
    return {"first": pair.first, "second": pair.second, "metric": pair.metric, **_differences(pair)}


def _differences(pair: Paired) -> dict[str, Any]:
    return {
        **asdict(pair.spread),
        "ahead": pair.better,
        "differences": [
            {"order": order, "seed": seed, "difference": difference}
            for (order, seed), difference in pair.differences.items()
        ],
    }


def _changes(changes: Changes) -> dict[str, Any]:
    return {
        "metrics": [
            {"system": pair.second, "metric": pair.metric, **_differences(pair)} for pair in changes.metrics
        ],
        "cells": {
            "compared": changes.compared,
            "differ": len(changes.cells),
            "largest": [_cell(cell) for cell in changes.largest],
        },
        "only_now": list(changes.only_now),
        "only_baseline": list(changes.only_before),
    }


def _cell(cell: CellChange) -> dict[str, Any]:
    return {**asdict(cell), "difference": cell.difference}


def _sequence(comparison: Comparison, matrix: AccuracyMatrix) -> dict[str, Any]:
    return {
        "method": matrix.method,
        "run": matrix.run,
        "order": comparison.order_of(matrix),
        "seed": matrix.seed,
        "kind": matrix.kind,
        "tasks": list(matrix.tasks),
        "metrics": comparison.metrics_of(matrix),
        "fwt": matrix.forward_transfers,
        "forgetting": matrix.forgetting,
        "forgetting_from_best": matrix.forgetting_from_best,
        "identity_gap": matrix.identity_gap,
        "after": _nulls(matrix.after),
        "trained": _nulls(matrix.trained),
        "zero_shot": _nulls(matrix.zero_shot),
        "missing": [{**asdict(missing), "command": missing.command()} for missing in matrix.missing],
    }


def _nulls(scores: np.ndarray) -> list[Any]:
    if scores.ndim > 1:
        return [_nulls(row) for row in scores]
    return [None if np.isnan(score) else float(score) for score in scores]
