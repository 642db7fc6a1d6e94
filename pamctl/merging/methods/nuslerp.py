"""Between two adapters along the arc between them, at the place that their weights say.

    x = sin((1 - t) a) / sin(a) · x_1 + sin(t a) / sin(a) · x_2,   t = w_2 / (w_1 + w_2)

where a is the angle between x_1 and x_2. It is `slerp` with weights in place of t, so that the order of the
adapters means nothing; t is 0.5 where the sum of the weights is under 1e-6. Only where the tensors are as
good as parallel or opposite, closer than 1e-6 rad, the result is (1 - t) x_1 + t x_2. A tensor no longer than
1e-8 is at a right angle to all others. A module that only one adapter has is passed on as it is.

Parameters:
  row_wise  false by default: each module's tensor is one vector. True: each output row of it is a vector with
            an angle of its own, which is mergekit's nuslerp_flatten = false. An arc for each column, which
            mergekit has too (nuslerp_row_wise = true), is not offered.

Weights are as given, by default 1 each. The angles come from inner products of the factors.

Source: arcee-ai/mergekit, merge_methods/nuslerp.py.
"""

import numpy as np

from pamctl.merging.methods.gram import cosines
from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings
from pamctl.merging.methods.slerp import along_arc

NO_SUM = 1e-6
COLLINEAR = 1e-12
"""The squared sine under which there is no arc: that of 1e-6 rad."""


def _between(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    assert gram is not None
    if len(weights) == 1:
        return np.ones(gram.shape[:-1])
    total = float(weights.sum())
    t = 0.5 if abs(total) < NO_SUM else float(weights[1]) / total
    cosine = cosines(gram)[..., 0, 1]
    return along_arc(cosine, t, (1 - cosine) * (1 + cosine) <= COLLINEAR)


def _by_row(settings: Settings) -> bool:
    return bool(settings["row_wise"])


METHOD = Method(
    name="nuslerp",
    title="along the arc between two adapters, by their weights",
    idempotent=True,
    work=Combination(_between, by_row=_by_row),
    parameters=(Parameter("row_wise", "an arc for each output row instead of one for the tensor", False),),
    least=2,
    most=2,
)
