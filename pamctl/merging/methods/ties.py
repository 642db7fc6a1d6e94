"""Trim each adapter to its largest elements, elect a sign for each place, merge those that have it.

    t_i    = x_i where |x_i| is among the largest share `density` of the scope, else 0
    sign   = sign of sum w_i t_i
    result = lambda · sum over agreeing i of w_i t_i / sum over agreeing i of w_i

Variants, which are the same at density 1 and weights 1 but for places whose sum is 0:
  paper     scope global: one threshold an adapter, over all its tensors; a sum of 0 elects the sign that most
            of the other places of the scope elect. The released code keeps one element more.
  peft      scope tensor; sum w_i t_i / how many agree, so that weights 0.5,0.5 halve the result: N copies
            of one adapter give it back at weights 1, not at weights 1/N. The sign is that of sum t_i; 0
            elects +. In factor space A and B are taken unscaled, with the square root of w_i s_i on either
            side.
  mergekit  scope tensor; a sum of 0 elects +.

Parameters:
  density  share of its elements that an adapter keeps, 0 to 1. 0.2 is the original's; PAM's tables use 0.9
           for a global and a task adapter; mergekit itself has 1, which trims nothing. 0 keeps nothing.
  scope    over what the share is taken: global, or each tensor by itself.
  sign     total, or frequency: which sign more of the adapters have there, whatever their size.
  merge    mean, as above; sum, without the division (mergekit's normalize = false); or max of |w_i t_i|.
  lambda   scale of the result.

Weights are as given, by default 1 each. The paper has none; equal ones are the paper's mean whatever their
size. An adapter of weight 0 takes no part, but in peft, where it still votes and is counted. Where a mean
divides by weights, none may be negative. One adapter is only trimmed. Negating all adapters negates the
result, but where + is elected for want of another sign.

Sources: TIES-Merging, arXiv 2306.01708, and prateeky2806/ties-merging; huggingface/peft,
utils/merge_utils.py; arcee-ai/mergekit, merge_methods/generalized_task_arithmetic.py.
"""

from typing import Any

from pamctl.merging.methods.method import Elementwise, Float64, Method, Parameter, Piece, Settings, Stream
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.sign_election import SIGN, Sign, majority_sign, merge_elected, merge_parameter
from pamctl.merging.methods.trimming import density_parameter, thresholds


def _measure(stream: Stream, weights: Float64, settings: Settings) -> tuple[list[Any], Sign]:
    limits = thresholds(stream, settings["density"])
    if settings["variant"] != "paper":
        return limits, 1
    return limits, majority_sign(stream, weights, settings, limits)


def _merge(piece: Piece, weights: Float64, settings: Settings, measured: tuple[list[Any], Sign]) -> Any:
    limits, on_tie = measured
    return merge_elected(piece, weights, settings, limits, on_tie)


METHOD = Method(
    name="ties",
    title="trim, elect a sign for each element, merge those that agree",
    idempotent=True,
    work=Elementwise(_merge, _measure),
    parameters=(
        density_parameter(0.2),
        Parameter(
            "scope",
            "over what the share is taken: all tensors of an adapter, or each by itself",
            "global",
            choices=("global", "tensor"),
            by_variant={"peft": "tensor", "mergekit": "tensor"},
        ),
        SIGN,
        merge_parameter(),
        LAMBDA,
    ),
    variants=("paper", "peft", "mergekit"),
)
