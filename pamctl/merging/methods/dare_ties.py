"""Drop elements at random, scale up the others, elect a sign for each place, merge those that have it.

    t_i    = x_i / density, kept with the probability `density`, else 0
    result = lambda · sum over agreeing i of w_i t_i / how many agree

Nothing is trimmed by magnitude: the draw takes the place of TIES' trimming.

Variants:
  peft      as above: the sign is that of sum t_i, so that weights do not vote, and the mean divides by
            how many agree, so that weights 0.5,0.5 halve the result. N copies of one adapter at density 1
            give it back at weights 1, not at weights 1/N. An adapter of weight 0 votes and is counted. In
            factor space A and B are taken unscaled, with the square root of w_i s_i on either side.
  mergekit  what is kept of a tensor is scaled so that the sum of its magnitudes is that of the whole
            tensor; the sign is that of sum w_i t_i; those that agree are summed (its normalize is false
            here), and N copies give one back at weights 1/N.

Parameters:
  density  probability that an element is kept, above 0 to 1; 0.5 by default.
  rescale  false: what is kept stays as it is.
  sign     total, or frequency: which sign more of the adapters have there, whatever their size.
  merge    mean or sum, see the variants (mergekit's mean divides by the weights that agree), or max of
           |w_i t_i|.
  lambda   scale of the result.

A sum of 0 elects +, and there alone negating all adapters does not negate the result. Weights are as
given, by default 1 each; where mergekit's mean divides by them, none may be negative.

Sources: DARE, arXiv 2311.03099; TIES-Merging, arXiv 2306.01708; huggingface/peft, utils/merge_utils.py;
arcee-ai/mergekit, sparsify.py and merge_methods/generalized_task_arithmetic.py.
"""

from dataclasses import replace
from typing import Any

from pamctl.merging.methods.dare import measure, thinned
from pamctl.merging.methods.dropping import RESCALE
from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.sign_election import SIGN, merge_elected, merge_parameter
from pamctl.merging.methods.trimming import density_parameter


def _merge(piece: Piece, weights: Float64, settings: Settings, ratios: list[float] | None) -> Any:
    return merge_elected(replace(piece, blocks=thinned(piece, settings, ratios)), weights, settings)


METHOD = Method(
    name="dare-ties",
    title="drop at random, scale up, elect a sign, merge those that agree",
    work=Elementwise(_merge, measure),
    parameters=(
        density_parameter(0.5, above=0.0),
        RESCALE,
        SIGN,
        merge_parameter(by_variant={"mergekit": "sum"}),
        LAMBDA,
    ),
    variants=("peft", "mergekit"),
    random=True,
)
