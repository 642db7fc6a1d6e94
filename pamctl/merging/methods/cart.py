"""Centered arithmetic with rank-reduced task vectors: the mean, plus what is strongest in each's difference.

    mean = sum_i w_i delta_i,  sum_i w_i = 1
    delta = mean + lambda · N · sum_i w_i top_k(delta_i - mean),  k = ceil(rho R)

lambda  scale of the differences; 0 gives the mean. The paper searches it on validation data.
rho     share 0..1 of the rank that a difference keeps. The paper finds about 0.08 best, Core Space's code
        has 0.04. 0 and 1 both give the mean, since whole differences cancel.
weights are divided by their sum, N counts those that are not 0; equal ones make N w_i = 1, the paper's plain
        sum of differences.

top_k is the best approximation of rank k. R is min(outputs, inputs) for the full fine-tunes of the paper;
for adapters it is that or the sum of their ranks, whichever is less, which is R of Core Space. So rho is the
share of directions that exist, and k is at least 1 for any rho above 0. Nothing from outside the span of the
inputs is mixed in. Copies of one adapter, or one input, give that adapter. The differences of two inputs are
opposite and cancel at any rho: CART needs three to be more than the mean.

Source: Choi et al., "Revisiting Weight Averaging for Model Merging", arXiv:2412.12153, section 4; on LoRA in
the core, arXiv:2509.17786 and github.com/apanariello4/core-space-merging (task_merger.py).
"""

import math
from collections.abc import Sequence

import numpy as np

from pamctl.merging.methods.method import Float64, Method, Parameter, Settings, Spectral
from pamctl.merging.methods.spectrum import available_rank, leading


def merge(cores: Sequence[Float64], weights: Float64, settings: Settings, shape: tuple[int, int]) -> Float64:
    """The merged core, see `Spectral`."""
    inputs = [(core, float(w)) for core, w in zip(cores, weights, strict=True) if w]
    # Without the slack 0.07 of 100 would be 8 directions: the product is 7.000000000000001.
    k = math.ceil(settings["rho"] * available_rank([core for core, _ in inputs], shape) - 1e-9)
    mean: Float64 = np.sum([w * core for core, w in inputs], axis=0)
    differences: Float64 = np.sum([w * leading(core - mean, k) for core, w in inputs], axis=0)
    merged: Float64 = mean + settings["lambda"] * len(inputs) * differences
    return merged


METHOD = Method(
    name="cart",
    title="the mean plus the strongest directions of each adapter's difference from it (CART)",
    work=Spectral(merge),
    parameters=(
        Parameter("lambda", "scale of the differences from the mean", 1.0),
        Parameter("rho", "share of the rank that each difference keeps", 0.08, least=0.0, most=1.0),
    ),
    spaces=("delta",),
    shares=True,
)
