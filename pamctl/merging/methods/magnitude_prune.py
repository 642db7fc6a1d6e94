"""Trim each adapter to its largest elements, and sum.

    t_i    = x_i where |x_i| is among the largest share `density` of the scope, else 0
    result = lambda · sum w_i t_i

Parameters:
  density  share of its elements that an adapter keeps, 0 to 1; 0.5 by default, since peft names none. 1 makes
           this the weighted sum; 0 keeps nothing.
  scope    over what the share is taken: each tensor by itself, as peft does, or all tensors of an adapter.
  lambda   scale of the result.

Weights are as given, by default 1 each, and may be negative.

Source: huggingface/peft, utils/merge_utils.py, magnitude_prune.
"""

from typing import Any

from pamctl_kernels import trim, weighted_average

from pamctl.merging.methods.method import Elementwise, Float64, Method, Parameter, Piece, Settings, Stream
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.trimming import density_parameter, thresholds


def _measure(stream: Stream, weights: Float64, settings: Settings) -> list[Any]:
    return thresholds(stream, settings["density"])


def _merge(piece: Piece, weights: Float64, settings: Settings, limits: list[Any]) -> Any:
    trimmed = [trim(x, limit) for x, limit in zip(piece.blocks, piece.of_inputs(limits), strict=True)]
    return weighted_average(trimmed, piece.of_inputs(weights * settings["lambda"]))


METHOD = Method(
    name="magnitude-prune",
    title="trim, then the weighted sum",
    work=Elementwise(_merge, _measure),
    parameters=(
        density_parameter(0.5),
        Parameter(
            "scope",
            "over what the share is taken: each tensor, or all tensors of an adapter",
            "tensor",
            choices=("tensor", "global"),
        ),
        LAMBDA,
    ),
)
