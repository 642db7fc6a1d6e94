"""Where in the model task adapters contradict the global one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pamctl.evaluation.conflicts import FACTORS, LayerConflicts
from pamctl.evaluation.figures.drawing import ROW, WIDTH, Looks, short

if TYPE_CHECKING:
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
    layers = max((conflicts.layers for conflicts in found), key=len)
    places = {layer: place for place, layer in enumerate(layers)}
    for conflicts in found:
        look = looks[conflicts.system]
        where = [places[layer] for layer in conflicts.layers if layer in places]
        for row, shares in enumerate((conflicts.conflicts, conflicts.differ)):
            for column, factor in enumerate(FACTORS):
                known = [
                    share
                    for layer, share in zip(conflicts.layers, shares[factor], strict=True)
                    if layer in places
                ]
                grid[row, column].plot(
                    where,
                    np.array(known, dtype=float),
                    color=look.colour,
                    marker=look.marker if len(layers) <= FEW_LAYERS else "",
                    linestyle=look.dashes,
                    markersize=4,
                    clip_on=False,
                    linewidth=1.2,
                    label=short(conflicts.system),
                )
    for column, factor in enumerate(FACTORS):
        grid[0, column].set_title(f"LoRA {factor.upper()}", loc="left")
        grid[1, column].set_xlabel("layer")
        every = -(-len(layers) // MOST_TICKS)
        grid[1, column].set_xticks(range(0, len(layers), every), layer_names(layers)[::every])
        if any(not name.isdigit() for name in layer_names(layers)):
            grid[1, column].tick_params(axis="x", labelrotation=90)
    grid[0, 0].set_ylabel("conflicts\n(% of important weights)")
    grid[1, 0].set_ylabel("signs that differ\n(% of all weights)")
    for axes in grid.flat:
        axes.set_ylim(bottom=0)
    figure.suptitle("Task adapters against the global one, before merging", x=0.01, ha="left", fontsize=10)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def layer_names(layers: Sequence[str]) -> list[str]:
    """The number of each layer, before it the part of the model where there are several."""
    parts = [layer.partition(".")[0].partition("_")[0] for layer in layers]
    numbers = [layer.rpartition(".")[2] for layer in layers]
    if len(set(parts)) == 1:
        return numbers
    return [f"{part} {number}" for part, number in zip(parts, numbers, strict=True)]
