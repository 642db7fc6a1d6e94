"""The share of conflicts by layer: where task adapters contradict the global one, of A and of B."""

import re
from collections.abc import Iterator, Sequence

from pamctl.evaluation.conflicts import LayerConflicts
from pamctl.evaluation.page.charts.lines import Axes, Point, Series, line_chart
from pamctl.evaluation.page.elements import element
from pamctl.evaluation.page.figure import NARROW, Looks, figure_section
from pamctl.evaluation.page.section import Section
from pamctl.evaluation.tables import NOT_AVAILABLE

CAPTION = (
    "Percent of the important global weights whose sign a task adapter contradicts once it is trained, "
    "before merging, over all stages of a method. Layers from the input to the output of the model."
)
FACTORS = ("a", "b")
_NUMBER = re.compile(r"(\d+)$")


def conflicts_figure(conflicts: Sequence[LayerConflicts], looks: Looks, id: str) -> Iterator[Section]:
    """Two areas, for A and for B, a line a system; nothing where nothing is known."""
    layers = list(dict.fromkeys(layer for each in conflicts for layer in each.layers))
    if not layers:
        return
    names = {float(place): name for place, name in enumerate(_short(layers)) if _is_named(place, len(layers))}
    panels = []
    for factor in FACTORS:
        label = f"conflicts in {factor.upper()} (% of important weights)"
        series = [
            Series(each.system, looks[each.system], _points(each, factor, layers)) for each in conflicts
        ]
        chart = line_chart(series, Axes("layer", label, names), f"{label}. {CAPTION}", NARROW)
        panels.append(element("div", chart, class_="panel"))
    header = ("method and layer", "in A", "in B", "signs differ in A", "signs differ in B")
    rows = [row for each in conflicts for row in _rows(each)]
    yield figure_section(
        id, "Conflicts by layer", CAPTION, element("div", panels, class_="panels"), header, rows, kind=None
    )


def _points(each: LayerConflicts, factor: str, layers: Sequence[str]) -> list[Point]:
    return [
        Point(
            float(layers.index(layer)), share, 0.0, f"{each.system}, {layer}, {factor.upper()}: {share:.2f} %"
        )
        for layer, share in zip(each.layers, each.conflicts[factor], strict=True)
        if share is not None
    ]


def _rows(each: LayerConflicts) -> list[list[str]]:
    columns = [shares[factor] for shares in (each.conflicts, each.differ) for factor in FACTORS]
    return [
        [f"{each.system}, {layer}", *(_told(share) for share in shares)]
        for layer, *shares in zip(each.layers, *columns, strict=True)
    ]


def _told(share: float | None) -> str:
    return NOT_AVAILABLE if share is None else f"{share:.2f} %"


def _short(layers: Sequence[str]) -> list[str]:
    """The number of each layer, or its whole name where they do not differ by that."""
    numbers = [found.group(1) if (found := _NUMBER.search(layer)) else "" for layer in layers]
    return numbers if len({*numbers}) == len(layers) else [str(place) for place in range(1, len(layers) + 1)]


def _is_named(place: int, count: int) -> bool:
    return place % (1 + (count - 1) // 9) == 0
