"""Of each element the one of largest magnitude among the adapters.

    result = lambda · w_k x_k,   k the last of those whose |w_k x_k| is largest

Where magnitudes tie, the later adapter is taken, so that the order of the adapters matters there and
nowhere else. Merging one after the other gives what merging all at once gives.

Parameters:
  lambda  scale of the result, 1 by default. The paper tunes it on task vectors; its released script has 0.5.

Weights multiply the adapters before they are compared, by default 1 each. N copies of one adapter give it
back at weights 1; at weights 1/N they give 1/N of it, by definition.

PAM's paper applies it to the factors of LoRA. The elements of A hold its random start, which all adapters
that were started alike share.

Source: MagMax, arXiv 2407.06322, and danielm1405/magmax.
"""

from typing import Any

from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.scale import LAMBDA


def _merge(piece: Piece, weights: Float64, settings: Settings, measured: None) -> Any:
    xp = piece.blocks[0].__array_namespace__()
    largest, *others = (
        x if w == 1 else x * w for x, w in zip(piece.blocks, map(float, weights), strict=True)
    )
    for x in others:
        taken = xp.abs(x) >= xp.abs(largest)
        largest = x * taken + largest * ~taken  # products with 0 and 1: a select by condition is slower
    return largest * float(settings["lambda"])


METHOD = Method(
    name="magmax",
    title="the element of largest magnitude",
    idempotent=True,
    work=Elementwise(_merge),
    parameters=(LAMBDA,),
    symmetric=False,
)
