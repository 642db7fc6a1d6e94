"""The mean of the adapters, drawn towards the base as far as they disagree.

    c = mean cosine of the pairs of x_i,   t = N c / (1 + (N - 1) c),   x = t · (x_1 + ... + x_N) / N

If fine-tuned models lie on a sphere around a centre, the point of the plane through them and the base that is
nearest to this centre is t of the way from the base to their mean. Equal adapters give t = 1; adapters that
have nothing in common, as unrelated LoRAs, give t near 0 and so next to nothing.

Parameters:
  filter_wise  false by default: one t for each module. True: one for each output row of its tensor.

At least two adapters, and no weights. t is kept within [0, 1], so that a c below 0 gives 0: mergekit lets t
become negative there, which subtracts what the adapters disagree on. A tensor no longer than 1e-8 has the
cosine 0 to all. A module that only one adapter has is passed on as it is.

Sources: Model Stock, arXiv 2403.19522; arcee-ai/mergekit, merge_methods/model_stock.py.
"""

import numpy as np

from pamctl.merging.methods.gram import cosines
from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings
from pamctl.merging.methods.weighting import refuse_weights


def _towards_base(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    assert gram is not None
    refuse_weights(weights, "model-stock", "leave the weights out, or use average")
    adapters = len(weights)
    if adapters == 1:
        return np.ones(gram.shape[:-1])
    first, second = np.triu_indices(adapters, k=1)
    cosine = np.maximum(cosines(gram)[..., first, second].mean(axis=-1), 0.0)
    t = adapters * cosine / (1 + (adapters - 1) * cosine)
    return np.repeat(t[..., None] / adapters, adapters, axis=-1)


def _by_row(settings: Settings) -> bool:
    return bool(settings["filter_wise"])


METHOD = Method(
    name="model-stock",
    title="the mean, drawn towards the base as far as the adapters disagree",
    idempotent=True,
    work=Combination(_towards_base, by_row=_by_row),
    parameters=(Parameter("filter_wise", "a t for each output row instead of one for the tensor", False),),
    least=2,
)
