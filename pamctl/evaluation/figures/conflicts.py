"""Where in the model task adapters contradict the global one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.conflicts import FACTORS, LayerConflicts, by_depth
from pamctl.evaluation.figures.drawing import ROW, WIDTH, Looks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TICKS = 12
"""On the axis of layers."""
FEW_LAYERS = 40
"""Up to so many, each is marked."""


def conflicts_by_layer(found: Sequence[LayerConflicts], looks: Looks) -> "Figure":
    """The share of conflicts in each layer, a line a system: of A and B, of important and all weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH + 1, max(4.8, 1.2 + ROW * len(found))), layout="constrained")
    grid = figure.subplots(2, len(FACTORS), sharex=True, sharey="row", squeeze=False)
    layers = by_depth(layer for conflicts in found for layer in conflicts.layers)
    for conflicts in found:
        for row, shares in enumerate((conflicts.conflicts, conflicts.differ)):
            for column, factor in enumerate(FACTORS):
                known = dict(zip(conflicts.layers, shares[factor], strict=True))
                _line(grid[row, column], [known.get(layer) for layer in layers], conflicts.system, looks)
    for column, factor in enumerate(FACTORS):
        grid[0, column].set_title(f"LoRA {factor.upper()}", loc="left")
        _name_layers(grid[1, column], layer_names(layers))
    grid[0, 0].set_ylabel("conflicts\n(% of important weights)")
    grid[1, 0].set_ylabel("signs that differ\n(% of all weights)")
    for axes in grid.flat:
        axes.set_ylim(bottom=0)
    figure.suptitle("Task adapters against the global one, before merging", x=0.01, ha="left", fontsize=10)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def _line(axes: "Axes", shares: Sequence[float | None], system: str, looks: Looks) -> None:
    look = looks[system]
    axes.plot(
        range(len(shares)),
        np.array(shares, dtype=float),
        color=look.colour,
        marker=look.marker if len(shares) <= FEW_LAYERS else "",
        linestyle=look.dashes,
        markersize=4,
        clip_on=False,
        linewidth=1.2,
        label=short(system),
    )


def _name_layers(axes: "Axes", names: Sequence[str]) -> None:
    every = -(-len(names) // MOST_TICKS)
    axes.set_xlabel("layer")
    axes.set_xticks(range(0, len(names), every), names[::every])
    if not all(name.isdigit() for name in names):
        axes.tick_params(axis="x", labelrotation=90)


def layer_names(layers: Sequence[str]) -> list[str]:
    """The number of each layer, before it the part of the model where there are several."""
    parts = [layer.partition(".")[0].partition("_")[0] for layer in layers]
    numbers = [layer.rpartition(".")[2] for layer in layers]
    if len(set(parts)) == 1:
        return numbers
    return [f"{part} {number}" for part, number in zip(parts, numbers, strict=True)]
