"""The mean of the adapters where each matters, and 0 elsewhere: TALL masks as PAM's tables have them.

    total  = sum w_i x_i, the weights adding up to 1
    mask_i = |w_i x_i| > lambda |total - w_i x_i|
    result = total where sum mask_i >= k, else 0

For a global and a task adapter of equal weight this is their mean where neither element is lambda times
the other or less. It is `consensus` with weights that are shares, so that alpha is 1/N, and with other
defaults.

This reading is an interpretation. PAM's paper says that TALL localises and merges what is important in a
global and a temporary LoRA, that it prunes selfish weights, and that lambda 0.1 was best among 0.1, 0.2
and 0.4. Not stated are what the elements are compared with, taken here to be 0 and the other adapter as
if both were task vectors; k, here 2 since k = 2 is what drops selfish ones; and the scale, here that of a
mean, so that adapters that agree keep theirs.

Parameters:
  lambda  of the mask, 0.1 by default; a lower one keeps more.
  k       in how many masks an element has to be, a whole number, 2 by default; in all of them where fewer
          adapters take part, so that one alone is kept as it is. 0 is the weighted mean.

Weights are divided by their sum. An adapter of weight 0 takes no part. N copies of one adapter give it
back while lambda (N - 1) < 1; beyond that the result is 0 by definition. Elements that are 0 once stay so
in later merges.

Sources: PAM, section 5 and its appendix on hyperparameters; arXiv 2405.07813 and nik-dim/tall_masks.
"""

from typing import Any

from pamctl.merging.methods.consensus import MASKS, agreed_total, lambda_parameter
from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings


def _merge(piece: Piece, weights: Float64, settings: Settings, measured: None) -> Any:
    return agreed_total(piece, weights, settings)


METHOD = Method(
    name="tall",
    title="the weighted mean where each adapter matters",
    idempotent=True,
    work=Elementwise(_merge),
    parameters=(lambda_parameter(0.1), MASKS),
    shares=True,
)
