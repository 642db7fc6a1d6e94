"""From the first adapter to the second, along the arc between them.

    x = sin((1 - t) a) / sin(a) · x_1 + sin(t a) / sin(a) · x_2,   cos(a) = <x_1, x_2> / (|x_1| |x_2|)

Each module's tensor is one vector. Halfway between two directions the result stays as long as they are,
where the mean would be shorter. The tensors themselves are not made unit vectors.

Parameters:
  t  where on the arc, from 0 (the first adapter) to 1 (the second); 0.5 by default.

It takes exactly two adapters, in this order, and no weights; `nuslerp` takes weights. Where |cos(a)| exceeds
0.9995 there is no arc to speak of and the result is (1 - t) x_1 + t x_2. A tensor no longer than 1e-8 is at a
right angle to all others. A module that only one adapter has is passed on as it is.

The angle comes from inner products of the factors, so that the result is exact at the sum of both ranks.

Sources: Shoemake 1985; arcee-ai/mergekit, merge_methods/slerp.py, where `base_model` is the first adapter.
"""

import numpy as np
from numpy.typing import NDArray

from pamctl.merging.methods.gram import cosines
from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings
from pamctl.merging.methods.weighting import refuse_weights

STRAIGHT = 0.9995


def along_arc(cosine: Float64, t: float, straight: NDArray[np.bool_]) -> Float64:
    """The coefficients of both ends of an arc, (..., 2), for the cosines (...) between them.

    Args:
        straight: where to go along the chord instead.
    """
    angle = np.arccos(np.where(straight, 0.0, cosine))
    first = np.where(straight, 1 - t, np.sin((1 - t) * angle) / np.sin(angle))
    second = np.where(straight, t, np.sin(t * angle) / np.sin(angle))
    return np.stack([first, second], axis=-1)


def _between(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    assert gram is not None
    refuse_weights(weights, "slerp", "leave the weights out and give t, or use nuslerp")
    if len(weights) == 1:
        return np.ones(gram.shape[:-1])
    cosine = cosines(gram)[..., 0, 1]
    return along_arc(cosine, float(settings["t"]), np.abs(cosine) > STRAIGHT)


METHOD = Method(
    name="slerp",
    title="along the arc from the first adapter to the second",
    idempotent=True,
    work=Combination(_between),
    parameters=(
        Parameter("t", "place on the arc, from the first adapter to the second", 0.5, least=0, most=1),
    ),
    symmetric=False,
    least=2,
    most=2,
)
