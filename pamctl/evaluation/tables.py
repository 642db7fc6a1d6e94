"""How the numbers of a comparison are laid out in tables: a header and rows of text, and Markdown of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from pamctl.evaluation.baseline import Changes
from pamctl.evaluation.by_type import MEAN
from pamctl.evaluation.metrics import METRICS
from pamctl.evaluation.summary import Comparison, Paired, Spread

NOT_AVAILABLE = "n/a"
"""A cell is missing."""
UNDEFINED = "-"
"""The metric does not exist for this method."""
PAIRED = ("ACC", "BWT", "A_m")
"""The metrics whose differences are shown."""

Table = tuple[tuple[str, ...], list[list[str]]]


def summary_table(comparison: Comparison) -> Table:
    """The table of methods and metrics."""
    scores = [score for score in comparison.zero_shot().values() if score is not None]
    zero = f"{np.mean(scores):.2f}" if len(scores) == len(comparison.tasks) else NOT_AVAILABLE
    rows = [["zero-shot", zero, *[UNDEFINED] * len(METRICS)]]
    for system in comparison.systems:
        cells = [
            _shown(comparison.spread(system, metric)) if comparison.defines(system, metric) else UNDEFINED
            for metric in METRICS
        ]
        rows.append([system, *cells, str(len(comparison.of(system)))])
    return ("method", *columns(comparison.fwt), "n"), rows


def columns(fwt: str) -> tuple[str, ...]:
    """The metrics as tables name them: FWT with its variant."""
    return tuple(f"FWT ({fwt})" if metric == "FWT" else metric for metric in METRICS)


def final_table(comparison: Comparison) -> Table:
    """The table of methods and final scores by task."""
    zero_shot = comparison.zero_shot()
    rows = [
        ["zero-shot", *(NOT_AVAILABLE if score is None else f"{score:.2f}" for score in zero_shot.values())]
    ]
    for system in comparison.systems:
        rows.append([system, *(_shown(comparison.final_score(system, task)) for task in comparison.tasks)])
    return ("method", *comparison.tasks), rows


def types_table(scores: Mapping[str, Mapping[str, Spread]]) -> Table:
    """The scores of one task by question type, a row a system."""
    names = dict.fromkeys(name for own in scores.values() for name in own if name != MEAN)
    rows = [[system, *(_shown(own.get(name)) for name in (*names, MEAN))] for system, own in scores.items()]
    return ("method", *names, MEAN), rows


def unread_table(comparison: Comparison, shares: Mapping[str, Mapping[str, Spread]]) -> Table:
    """The percent of answers that were unread, of each task that counts them."""
    rows = [
        [system, *(_shown(own.get(system)) for own in shares.values())]
        for system in comparison.systems
        if any(system in own for own in shares.values())
    ]
    return ("method", *shares), rows


def order_table(comparison: Comparison) -> Table:
    """The table of methods and ACC by order."""
    rows = [
        [system, *(_shown(comparison.spread(system, "ACC", order)) for order in comparison.orders)]
        for system in comparison.systems
    ]
    return ("method", *comparison.orders), rows


def all_pairs_table(pairs: Sequence[Paired]) -> Table:
    """The differences of every two systems, a row a pair and metric."""
    rows = [
        [
            f"{pair.second} - {pair.first}",
            pair.metric,
            _shown(pair.spread, signed=True),
            f"{pair.better} of {pair.spread.n}",
        ]
        for pair in pairs
        if pair.metric in PAIRED
    ]
    return ("methods", "metric", "difference", "ahead on"), rows


def differences_table(pairs: Sequence[Paired]) -> Table:
    """The differences of every system from one, a row a system; in brackets, on how many it is ahead."""
    found = _by_system(pairs)
    rows = [[system, *(_difference(own.get(metric)) for metric in PAIRED)] for system, own in found.items()]
    return ("method", *PAIRED), rows


def differences_by_order_table(pairs: Sequence[Paired], orders: Sequence[str]) -> Table:
    """The mean difference of every system from one in each order, a row a system."""
    places = [(metric, order) for metric in PAIRED for order in orders]
    rows = [
        [system, *(_mean_in(own.get(metric), order) for metric, order in places)]
        for system, own in _by_system(pairs).items()
    ]
    return ("method", *(f"{metric}, {order}" for metric, order in places)), rows


def changes_table(changes: Changes, comparison: Comparison) -> Table:
    """What changed in every metric since the baseline, a row a system; n are the sequences that both have."""
    rows = []
    for system, own in _by_system(changes.metrics).items():
        cells = [
            _shown(own[metric].spread if metric in own else None, signed=True)
            if comparison.defines(system, metric)
            else UNDEFINED
            for metric in METRICS
        ]
        rows.append([system, *cells, str(max(pair.spread.n for pair in own.values()))])
    return ("method", *columns(comparison.fwt), "n"), rows


def cell_changes_table(changes: Changes) -> Table:
    """The cells of the matrices that changed most."""
    rows = [
        [
            cell.system,
            cell.order,
            "" if cell.seed is None else str(cell.seed),
            "zero-shot" if cell.after == 0 else f"after {cell.after}",
            cell.task,
            f"{cell.before:.2f}",
            f"{cell.now:.2f}",
            f"{cell.difference:+.2f}",
        ]
        for cell in changes.largest
    ]
    return ("method", "order", "seed", "state", "task", "baseline", "now", "difference"), rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, numbers to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    rule = "| --- |" + " ---: |" * (len(header) - 1)
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], rule, *lines[1:]]


def _by_system(pairs: Sequence[Paired]) -> dict[str, dict[str, Paired]]:
    found: dict[str, dict[str, Paired]] = {}
    for pair in pairs:
        found.setdefault(pair.second, {})[pair.metric] = pair
    return found


def _shown(spread: Spread | None, *, signed: bool = False) -> str:
    if spread is None:
        return NOT_AVAILABLE
    mean = f"{spread.mean:+.2f}" if signed else f"{spread.mean:.2f}"
    return mean if spread.n == 1 else f"{mean} ± {spread.std:.2f}"


def _difference(pair: Paired | None) -> str:
    if pair is None:
        return UNDEFINED
    return f"{_shown(pair.spread, signed=True)} ({pair.better} of {pair.spread.n})"


def _mean_in(pair: Paired | None, order: str) -> str:
    spread = pair.spread_in(order) if pair else None
    return f"{spread.mean:+.2f}" if spread else UNDEFINED
