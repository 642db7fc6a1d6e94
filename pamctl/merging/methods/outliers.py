"""What the two breadcrumbs methods share: neither the largest elements are kept nor the smallest."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pamctl_kernels import kth_largest_magnitudes

from pamctl.merging.methods.method import Float64, Parameter, Piece, Settings, Stream
from pamctl.merging.methods.trimming import BlocksOf, kept_count, within

GAMMA = Parameter(
    "gamma",
    "share of its elements, the largest, that an adapter loses, 0 to below 1",
    0.01,
    least=0.0,
    most=0.99,
    per_adapter=True,
)

Band = tuple[Any, Any]
"""The least and the largest magnitude that are kept."""


def measure(stream: Stream, weights: Float64, settings: Settings) -> list[Band | None] | None:
    """mergekit's band of each input, None for one that keeps everything; None in the other variant."""
    if settings["variant"] != "mergekit":
        return None
    densities, gammas = settings["density"], settings["gamma"]
    cut = [i for i, density in enumerate(densities) if density < 1]
    if not cut:
        return [None] * len(densities)
    ends = [partial(end, densities[i], gammas[i]) for end in (_least_place, _greatest_place) for i in cut]
    found = kth_largest_magnitudes(BlocksOf(stream, [*cut, *cut]), ends)
    bands = dict(zip(cut, zip(found[: len(cut)], found[len(cut) :], strict=True), strict=True))
    return [bands.get(i) for i in range(len(densities))]


def without_outliers(piece: Piece, settings: Settings, bands: Sequence[Band | None] | None) -> list[Any]:
    """The blocks with what lies outside the bands set to 0."""
    if bands is not None:
        return [
            x if band is None else within(x, *band)
            for x, band in zip(piece.blocks, piece.of_inputs(bands), strict=True)
        ]
    densities, gammas = (piece.of_inputs(settings[name]) for name in ("density", "gamma"))
    return [_by_row(*each) for each in zip(piece.blocks, densities, gammas, strict=True)]


def _greatest_place(density: float, gamma: float, n: int) -> int:
    """Which of n magnitudes, from 1 for the largest, is the largest kept."""
    return min(int(gamma * n), n - kept_count(density, n)) + 1


def _least_place(density: float, gamma: float, n: int) -> int:
    """Which is the smallest kept; 0 where none is."""
    kept = kept_count(density, n)
    return _greatest_place(density, gamma, n) + kept - 1 if kept else 0


def _by_row(x: Any, density: float, gamma: float) -> Any:
    """In each row int(gamma n) are lost, and of the others as many are kept as the density is of all n."""
    xp = x.__array_namespace__()
    n = x.shape[1]
    lost = min(int(gamma * n), n - 1)
    kept = min(kept_count(density, n), n - lost)
    if kept == 0:
        return x * 0.0
    if kept == n:
        return x
    ascending = xp.sort(xp.abs(x), axis=1)
    greatest, least = n - 1 - lost, n - lost - kept
    return within(x, ascending[:, least : least + 1], ascending[:, greatest : greatest + 1])
