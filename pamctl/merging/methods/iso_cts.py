"""Isotropic merging in common and task-specific subspaces: shared directions, and some of each input's own.

    R = min(outputs, inputs, sum of the inputs' ranks), e = round((R - int(f R)) / N), c = R - N e
    U_0 S_0 V_0 = SVD of sum_i w_i delta_i, its c largest singular values         (common)
    U_i S_i V_i = SVD of w_i delta_i - U_0 U_0' w_i delta_i, its e largest         (specific)
    delta = alpha · mean(S) · polar([U_1 .. U_N U_0]) polar([V_1; ..; V_N; V_0]),  S = all S_i and S_0

common_space_fraction   f, the share 0..1 of the directions that is common; 0.8 in paper and code. It is
                        rounded so that each input gets the same number e; where rounding would ask for more
                        than R directions, e is one less. With f = 1 this is iso-c where the sum has R
                        directions.
alpha                   scale of the result. The paper searches it on validation data.
weights                 multiply the deltas; 1 each by default.

polar(X) = P Q for X = P D Q. The code takes R = min(outputs, inputs), right for full fine-tunes. Of adapters
only directions that exist are used and count in the mean: arbitrary vectors of the null space would become as
strong as real ones. Where R - int(f R) is at most N / 2, no input has directions of its own, as for two
adapters of rank 2 or less at 0.8.

Source: Marczak et al., "No Task Left Behind", ICML 2025, arXiv:2502.04959, section 4.2 and
github.com/danielm1405/iso-merging (src/utils/iso.py, config/method/iso_cts.yaml).
"""

from collections.abc import Sequence

import numpy as np

from pamctl.merging.methods.method import Float64, Method, Parameter, Settings, Spectral
from pamctl.merging.methods.spectrum import available_rank, polar, present, svd


def merge(cores: Sequence[Float64], weights: Float64, settings: Settings, shape: tuple[int, int]) -> Float64:
    """The merged core, see `Spectral`."""
    inputs = present(cores, weights)
    if not inputs:
        return np.zeros_like(cores[0])
    scale = max(float(np.linalg.norm(core)) for core in inputs)
    common, own = directions_of_each(
        available_rank(inputs, shape), len(inputs), settings["common_space_fraction"]
    )
    u, s, v = svd(np.sum(inputs, axis=0), scale)
    u, s, v = u[:, :common], s[:common], v[:common]
    specific = [svd(core - u @ (u.T @ core), scale) for core in inputs]
    left = np.hstack([*(each[0][:, :own] for each in specific), u])
    singular = np.concatenate([*(each[1][:own] for each in specific), s])
    right = np.vstack([*(each[2][:own] for each in specific), v])
    if not len(singular):
        return np.zeros_like(cores[0])
    merged: Float64 = settings["alpha"] * singular.mean() * (polar(left) @ polar(right))
    return merged


def directions_of_each(available: int, inputs: int, fraction: float) -> tuple[int, int]:
    """How many directions are common and how many each input has of its own, together those available."""
    own = min(round((available - int(available * fraction)) / inputs), available // inputs)
    return available - own * inputs, own


METHOD = Method(
    name="iso-cts",
    title="equally strong directions, common ones of the sum and some of each adapter's own (Iso-CTS)",
    work=Spectral(merge),
    parameters=(
        Parameter(
            "common_space_fraction", "share of the directions that is common", 0.8, least=0.0, most=1.0
        ),
        Parameter("alpha", "scale of the result", 1.0),
    ),
    spaces=("delta",),
)
