"""Drop the smaller elements likelier than the larger, scale up, elect a sign, merge those that have it.

    u      = rank of |x_i| in its row, from 0 for the smallest to 1 for the largest
    p      = density - epsilon + 2 epsilon u
    t_i    = x_i / p, kept with the probability p, else 0
    sign   = sign of sum w_i t_i
    result = lambda · sum over agreeing i of w_i t_i / sum over agreeing i of w_i

A row of one element has p = density. Equal magnitudes rank by column.

Variants:
  paper     as above; the paper's window is 2 epsilon.
  mergekit  in place of the division by p, what is kept of a tensor is scaled so that the sum of its
            magnitudes is that of the whole tensor.

Parameters:
  density  mean probability that an element is kept, above 0 to 1; 0.5 by default (mergekit itself has 1).
           1 drops nothing, whatever epsilon is; else density - epsilon must be above 0 and density +
           epsilon below 1.
  epsilon  half the spread of p, 0.15 by default as in mergekit; 0 is DARE.
  rescale  false: what is kept stays as it is.
  sign, merge, lambda  as in `ties`.

Weights are as given, by default 1 each. Equal ones are the paper's mean whatever their size; none may be
negative where a mean divides by them. A sum of 0 elects +, and there alone negating all adapters does not
negate the result.

Sources: DELLA-Merging, arXiv 2406.11617, and declare-lab/della; arcee-ai/mergekit, sparsify.py.
"""

from dataclasses import replace
from typing import Any

from pamctl.merging.methods.della_probabilities import EPSILON, measure, thinned
from pamctl.merging.methods.dropping import RESCALE
from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.sign_election import SIGN, merge_elected, merge_parameter
from pamctl.merging.methods.trimming import density_parameter


def _merge(piece: Piece, weights: Float64, settings: Settings, ratios: list[float] | None) -> Any:
    return merge_elected(replace(piece, blocks=thinned(piece, settings, ratios)), weights, settings)


METHOD = Method(
    name="della",
    title="drop the smaller likelier, scale up, elect a sign, merge those that agree",
    work=Elementwise(_merge, measure),
    parameters=(density_parameter(0.5, above=0.0), EPSILON, RESCALE, SIGN, merge_parameter(), LAMBDA),
    variants=("paper", "mergekit"),
    random=True,
)
