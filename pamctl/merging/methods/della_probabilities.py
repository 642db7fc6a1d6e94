"""What the two DELLA methods share: the larger an element is in its row, the likelier it is kept."""

from typing import Any

from pamctl.merging.methods.dropping import Probabilities, dropped, magnitude_ranks, norm_ratios
from pamctl.merging.methods.method import Float64, Parameter, Piece, Settings, Stream
from pamctl.refusal import UsageRefusal

EPSILON = Parameter(
    "epsilon",
    "how far the probabilities of a row's smallest and largest element lie from the density",
    0.15,
    least=0.0,
    most=0.5,
    per_adapter=True,
)


def measure(stream: Stream, weights: Float64, settings: Settings) -> list[float] | None:
    """What mergekit scales each input by; None where it is divided by the probabilities."""
    if settings["variant"] != "mergekit" or not settings["rescale"]:
        return None
    return norm_ratios(stream, lambda piece: _probabilities(piece, settings))


def thinned(piece: Piece, settings: Settings, ratios: list[float] | None) -> list[Any]:
    """The blocks with elements dropped and the others scaled."""
    return dropped(piece, _probabilities(piece, settings), settings, ratios)


def _probabilities(piece: Piece, settings: Settings) -> Probabilities:
    densities, epsilons = (piece.of_inputs(settings[name]) for name in ("density", "epsilon"))
    return [
        None if density >= 1 else _by_rank(x, density, epsilon)
        for x, density, epsilon in zip(piece.blocks, densities, epsilons, strict=True)
    ]


def _by_rank(x: Any, density: float, epsilon: float) -> Any:
    """From density - epsilon for the smallest magnitude of a row to density + epsilon for its largest."""
    low, high = density - epsilon, density + epsilon
    if low <= 0 or high >= 1:
        raise UsageRefusal(
            f"density {density:g} and epsilon {epsilon:g} make probabilities from {low:g} to {high:g}",
            "give an epsilon that leaves them above 0 and below 1, or density 1, which drops nothing",
        )
    others = x.shape[1] - 1
    if others == 0:
        return density
    ranks = magnitude_ranks(x).astype(x.dtype)
    return ranks * (2 * epsilon / others) + low
