"""What the two DARE methods share: each element is kept with one probability, the density."""

from typing import Any

from pamctl.merging.methods.dropping import Probabilities, dropped, norm_ratios
from pamctl.merging.methods.method import Float64, Piece, Settings, Stream


def measure(stream: Stream, weights: Float64, settings: Settings) -> list[float] | None:
    """What mergekit scales each input by; None where it is divided by the density."""
    if settings["variant"] != "mergekit" or not settings["rescale"]:
        return None
    return norm_ratios(stream, lambda piece: _probabilities(piece, settings))


def thinned(piece: Piece, settings: Settings, ratios: list[float] | None) -> list[Any]:
    """The blocks with elements dropped and the others scaled."""
    return dropped(piece, _probabilities(piece, settings), settings, ratios)


def _probabilities(piece: Piece, settings: Settings) -> Probabilities:
    return [None if density >= 1 else float(density) for density in piece.of_inputs(settings["density"])]
