"""The sum of the adapters where at least k of them matter, and 0 elsewhere.

    total  = sum w_i x_i
    mask_i = |w_i x_i| > lambda |total - w_i x_i|
    result = alpha · total where sum mask_i >= k, else 0

mask_i is the TALL mask of adapter i: where its own element outweighs what the others bring. An element in
no mask is called catastrophic, one in a single mask selfish; k = 2 drops both, k = 1 only the former, k =
0 nothing, which leaves the weighted sum.

Parameters:
  lambda  of the mask, not a scale; a lower one puts more elements into each mask. 0.4 by default: the
          released code chooses it per task among 0.2 to 0.6 on held-out data.
  k       in how many masks an element has to be, a whole number, 2 by default; in all of them where fewer
          adapters take part, so that one alone is kept as it is.
  alpha   scale of the result, 1 by default; the paper tunes it.

Weights multiply the adapters before anything else, by default 1 each, and may be negative. An adapter of
weight 0 takes no part. N copies of one adapter at weights 1/N give it back while lambda (N - 1) < 1;
beyond that no element outweighs the others, and the result is 0 by definition.

Source: Localizing Task Information (TALL masks, Consensus Merging), arXiv 2405.07813, and
nik-dim/tall_masks. Its variant whose total is that of TIES is not offered.
"""

from typing import Any

from pamctl_kernels import weighted_average

from pamctl.merging.methods.method import Elementwise, Float64, Method, Parameter, Piece, Settings

MASKS = Parameter("k", "in how many masks an element has to be", 2, least=0, whole=True)


def lambda_parameter(default: float) -> Parameter:
    """The threshold of the masks."""
    return Parameter(
        "lambda", "how much of the others an element has to outweigh to be in a mask", default, least=0.0
    )


def agreed_total(piece: Piece, weights: Float64, settings: Settings) -> Any:
    """The weighted sum where enough masks hold, else 0."""
    total = weighted_average(piece.blocks, weights)
    taking_part = [(x, float(w)) for x, w in zip(piece.blocks, weights, strict=True) if w]
    needed = min(int(settings["k"]), len(taking_part))
    if needed == 0:
        return total
    xp = total.__array_namespace__()
    masks = xp.zeros(total.shape, dtype=xp.int16)
    for x, weight in taking_part:
        x = x if weight == 1 else x * weight
        masks = masks + (xp.abs(x) > xp.abs(total - x) * float(settings["lambda"]))
    return total * (masks >= needed)


def _merge(piece: Piece, weights: Float64, settings: Settings, measured: None) -> Any:
    return agreed_total(piece, weights, settings) * float(settings["alpha"])


METHOD = Method(
    name="consensus",
    title="the weighted sum where at least k adapters matter",
    work=Elementwise(_merge),
    parameters=(
        lambda_parameter(0.4),
        MASKS,
        Parameter("alpha", "scale of the result", 1.0),
    ),
)
