"""Isotropic merging in the common subspace: the sum of the deltas, with all its directions equally strong.

    U S V = SVD of sum_i w_i delta_i
    delta = alpha · mean(S) · U V

alpha   scale of the result. The paper searches it on validation data for each model and number of tasks; 1
        keeps the mean singular value.
weights multiply the deltas; 1 each by default.

The mean and the result are over the k directions that the sum has, which for adapters in general position is
the sum of their ranks (or the smaller side of the delta). The released code runs on full fine-tunes, where
k = min(outputs, inputs); so used on the deltas of adapters it would average many zeros in and give most of
the energy to arbitrary vectors outside the adapters' span. In the core neither happens, as in Core Space.
One input does not give itself, but its delta with a flat spectrum.

Source: Marczak et al., "No Task Left Behind", ICML 2025, arXiv:2502.04959, section 4.1 and
github.com/danielm1405/iso-merging (src/utils/iso.py); on LoRA in the core, arXiv:2509.17786.
"""

from collections.abc import Sequence

import numpy as np

from pamctl.merging.methods.method import Float64, Method, Parameter, Settings, Spectral
from pamctl.merging.methods.spectrum import present, svd


def merge(cores: Sequence[Float64], weights: Float64, settings: Settings, shape: tuple[int, int]) -> Float64:
    """The merged core, see `Spectral`."""
    inputs = present(cores, weights)
    if not inputs:
        return np.zeros_like(cores[0])
    scale = max(float(np.linalg.norm(core)) for core in inputs)
    left, singular, right = svd(np.sum(inputs, axis=0), scale)
    if not len(singular):
        return np.zeros_like(cores[0])
    merged: Float64 = settings["alpha"] * singular.mean() * (left @ right)
    return merged


METHOD = Method(
    name="iso-c",
    title="the sum of the deltas with all its singular values made equal (Iso-C)",
    work=Spectral(merge),
    parameters=(Parameter("alpha", "scale of the result", 1.0),),
    spaces=("delta",),
)
