"""Orthogonal projection-based continual merging: one input after another, cleaned of what is there already.

    M_1 = delta_1
    U S V' = SVD of M_(t-1),  P = U' delta_t V,  r = number of leading S whose sum is at most alpha of all
    P' = P with its diagonal and its upper left r x r block set to 0
    M_t = M_(t-1) + U P' V'
    delta = M_T · mean_t |delta_t| / |M_T|      (Frobenius norms)

alpha   share 0..1 of the sum of the singular values merged so far that protects its directions: 0 only drops
        what acts on a single pair of singular vectors, 1 everything within their span. 0.5 in the code.
weights multiply the deltas; 1 each by default. An adapter of weight 0 takes no part, in the mean neither.

The order of the adapters is the order of the tasks. The released code keeps lambda_t, the factor that brings
each step's norm to the mean norm of the tasks so far, and multiplies by it again in the next step; only the
last one remains, and nothing else depends on it. There norms are over the whole model, here over each module,
since modules are merged one by one; the direction of every module's result is the same. The code takes full U
and V, whose null-space vectors are arbitrary and whose diagonal it also clears; here only directions that
M_(t-1) has are cleared, so a delta orthogonal to all before is added whole. At alpha = 1 the code protects
nothing (it finds no sum above 1); here everything. Copies of one adapter, or one input, give that adapter.

Source: Tang et al., "Merging Models on the Fly Without Retraining", NeurIPS 2025, arXiv:2501.09522 and
github.com/tanganke/fusion_bench (fusion_bench/method/opcm/opcm.py).
"""

from collections.abc import Sequence

import numpy as np

from pamctl.merging.methods.method import Float64, Method, Parameter, Settings, Spectral
from pamctl.merging.methods.spectrum import svd


def merge(cores: Sequence[Float64], weights: Float64, settings: Settings, shape: tuple[int, int]) -> Float64:
    """The merged core, see `Spectral`."""
    inputs = [float(w) * core for core, w in zip(cores, weights, strict=True) if w]
    if not inputs:
        return np.zeros_like(cores[0])
    merged = inputs[0]
    for core in inputs[1:]:
        merged = merged + cleaned(core, merged, settings["alpha"])
    norm = float(np.linalg.norm(merged))
    mean = sum(float(np.linalg.norm(core)) for core in inputs) / len(inputs)
    return merged * (mean / norm) if norm else merged


def cleaned(core: Float64, merged: Float64, alpha: float) -> Float64:
    """A core without what would change the effect of an earlier one along its own singular vectors."""
    left, singular, right = svd(merged)
    if not len(singular):
        return core
    sums = singular.cumsum()
    protected = int(np.count_nonzero(sums / sums[-1] <= alpha))
    projected = left.T @ core @ right.T
    conflict = np.diag(np.diag(projected))
    conflict[:protected, :protected] = projected[:protected, :protected]
    return core - left @ conflict @ right


METHOD = Method(
    name="opcm",
    title="adapters merged in the order given, each cleaned of directions already taken (OPCM, continual)",
    work=Spectral(merge),
    parameters=(
        Parameter(
            "alpha", "share of the merged spectrum that protects its directions", 0.5, least=0.0, most=1.0
        ),
    ),
    spaces=("delta",),
    symmetric=False,
)
