"""The direction that is nearest to all adapters on the sphere, at their mean length.

    u_i = x_i / |x_i|,   m minimises sum w_i angle(m, u_i)^2,   x = (sum w_i |x_i|) · m

It starts from the normalised sum of w_i u_i and repeats: with a_i the angle between m and u_i,

    v = sum w_i · a_i / sin(a_i) · (u_i - cos(a_i) m),   m <- cos(|v|) m + sin(|v|) v / |v|

For two adapters of equal length and weight it is `slerp` at 0.5.

Parameters:
  max_iter  the most steps, a whole number; 10 by default.
  tol       1e-5 by default. The step in rad under which it stops, the angle under which an adapter does not
            pull, and the length, as a share of the longest, under which a tensor has no direction.

The weights are at least 0 and divided by their sum, by default equal, as they always are in mergekit. A
tensor without direction counts in the mean length only. Where the sum that it starts from is zero, it starts
from the first adapter, and an adapter opposite to m does not pull, as its pull has no direction. In mergekit
`tol` is a length itself, so that tensors under it vanish. m stays a sum of the x_i, so that its coefficients
are all that is iterated.

Sources: Karcher 1977; arXiv 2603.04972; arcee-ai/mergekit, merge_methods/karcher.py.
"""

import numpy as np

from pamctl.merging.methods.gram import norm_of_sum, norms
from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings


def _karcher_mean(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    assert gram is not None
    tol, lengths = float(settings["tol"]), norms(gram)
    directed = lengths > tol * lengths.max(axis=-1, keepdims=True)
    units = np.where(directed, lengths, 1.0)
    cosine = np.clip(gram / units[..., :, None] / units[..., None, :], -1.0, 1.0)
    pulls = np.where(directed, weights, 0.0)
    total = pulls.sum(axis=-1, keepdims=True)
    pulls = pulls / np.where(total > 0, total, 1.0)
    mean = _start(cosine, pulls, tol)
    for _ in range(int(settings["max_iter"])):
        step = _step(cosine, mean, pulls, tol)
        length = norm_of_sum(cosine, step)[..., None]
        moving = length >= tol
        if not moving.any():
            break
        moved = np.cos(length) * mean + np.sin(length) * step / np.where(moving, length, 1.0)
        moved /= norm_of_sum(cosine, moved)[..., None]
        mean = np.where(moving, moved, mean)
    return (weights * lengths).sum(axis=-1, keepdims=True) * mean / units


def _start(cosine: Float64, pulls: Float64, tol: float) -> Float64:
    """Coefficients of unit tensors, (..., N): their normalised sum, or the first that pulls where it is 0."""
    length = norm_of_sum(cosine, pulls)[..., None]
    first = np.arange(pulls.shape[-1]) == (pulls > 0).argmax(axis=-1)[..., None]
    return np.where(length < tol, first, pulls / np.where(length < tol, 1.0, length))


def _step(cosine: Float64, mean: Float64, pulls: Float64, tol: float) -> Float64:
    """The mean of the tangents at `mean` towards the unit tensors, as coefficients of these, (..., N)."""
    towards = np.clip(np.einsum("...ij,...j->...i", cosine, mean), -1.0, 1.0)
    angles = np.arccos(towards)
    pulling = (angles >= tol) & (angles <= np.pi - tol)
    pulls = np.where(pulling, pulls * angles / np.where(pulling, np.sin(angles), 1.0), 0.0)
    return pulls - (pulls * towards).sum(axis=-1, keepdims=True) * mean


METHOD = Method(
    name="karcher",
    title="the direction nearest to all adapters on the sphere, at their mean length",
    idempotent=True,
    work=Combination(_karcher_mean),
    parameters=(
        Parameter("max_iter", "the most steps", 10, least=1, whole=True),
        Parameter("tol", "the step in rad under which it stops", 1e-5, above=0),
    ),
    shares=True,
)
