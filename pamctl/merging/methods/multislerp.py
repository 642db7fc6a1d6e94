"""Any number of adapters, mixed on the sphere of their directions and as long as they are on average.

    u_i = x_i / (|x_i| + eps),   m = sum w_i u_i,   x = (sum w_i |x_i|) · m / |m|

The method is written as a step in the plane that touches the sphere at m / |m|: u_i are projected onto it,
averaged and carried back. That average is zero, because the w_i u_i add up to m itself, so that m / |m|
already is the result. (`karcher` repeats such steps with the angles on the sphere.)

Parameters:
  normalize_weights  true by default: the weights are divided by their sum, which must not be 0.
  eps                added to each length, and the length of m at which directions cancel; 1e-8 by default.

Weights are by default 1 each and may be negative. Where the directions cancel (|m| at most eps, or 1e-7 of
the weights, which is as far as inner products tell), two adapters are added by their weights and more are
refused. A module that only one adapter has is passed on as it is.

Source: arcee-ai/mergekit, merge_methods/multislerp.py, and the post that it names,
https://goddard.blog/posts/multislerp-wow-what-a-cool-idea.
"""

import numpy as np

from pamctl.merging.methods.gram import norm_of_sum, norms
from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings
from pamctl.merging.methods.weighting import normalised
from pamctl.refusal import UsageRefusal

RESOLVED = 1e-7
"""The length of a sum of unit tensors that inner products in float64 can tell from 0."""


def _on_sphere(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    assert gram is not None
    if len(weights) == 1:
        return np.ones(gram.shape[:-1])
    if settings["normalize_weights"]:
        weights = normalised(weights, "multislerp")
    eps, lengths = float(settings["eps"]), norms(gram)
    mean = weights / (lengths + eps)
    length = norm_of_sum(gram, mean)
    cancelled = length <= max(eps, RESOLVED * float(np.abs(weights).sum()))
    if len(weights) > 2 and (cancelled & (lengths > eps).any(axis=-1)).any():
        raise UsageRefusal(
            "multislerp: in a module the weighted directions cancel, so that none is their mean",
            "give other weights, or use linear",
        )
    scale = (lengths * weights).sum(axis=-1) / np.where(cancelled, 1.0, length)
    return np.where(cancelled[..., None], weights, scale[..., None] * mean)


METHOD = Method(
    name="multislerp",
    title="the mean direction of any number of adapters, at their mean length",
    idempotent=True,
    work=Combination(_on_sphere),
    parameters=(
        Parameter("normalize_weights", "whether the weights are divided by their sum", True),
        Parameter("eps", "added to each length, and where directions count as cancelled", 1e-8, above=0),
    ),
)
