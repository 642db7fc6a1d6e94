"""Move each element of the first adapter towards the second's by t at most.

    result = a + clip(b - a, -t, t)

where a = w_1 x_1 and b = w_2 x_2. Elements that differ by t or less become the second's; others stay near
the first's. This is mergekit's weight · b + (1 - weight) · a with weight = min(1, t / |a - b|), without a
division, so that equal elements need no floor.

Parameters:
  t  how far an element may move, in the unit of the elements, at least 0. 0.0001 by default, that of the
     model for which the method was made; mergekit names none. 0 gives the first adapter.

The first adapter is the one to start from, so that the order matters. One alone is passed on as it is.
Weights multiply the adapters before anything else, by default 1 each.

Source: arcee-ai/mergekit, merge_methods/nearswap.py, where the first is the base model, after
alchemonaut/QuartetAnemoi-70B-t0.0001.
"""

from typing import Any

from pamctl.merging.methods.method import Elementwise, Float64, Method, Parameter, Piece, Settings


def _merge(piece: Piece, weights: Float64, settings: Settings, measured: None) -> Any:
    first, *second = (x if w == 1 else x * w for x, w in zip(piece.blocks, map(float, weights), strict=True))
    if not second:
        return first
    xp, t = first.__array_namespace__(), float(settings["t"])
    return first + xp.clip(second[0] - first, -t, t)


METHOD = Method(
    name="nearswap",
    title="the first adapter, moved towards the second by t at most",
    idempotent=True,
    work=Elementwise(_merge),
    parameters=(Parameter("t", "how far an element may move, in its own unit", 1e-4, least=0.0),),
    symmetric=False,
    least=2,
    most=2,
)
