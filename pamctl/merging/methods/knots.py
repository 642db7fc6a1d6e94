"""KnOTS: another method, on the coordinates of the deltas along directions that all of them share.

    stack = outputs:  [delta_1 .. delta_N] = U S [V_1 .. V_N],  P_i = S V_i (k x inputs),  delta = U merge(P)
    stack = inputs:   the same of the transposed deltas, where P_i' = delta_i U (outputs x k)

inner   the method that merges the P_i: TIES in the paper (topK 20 %, scale 0.6 for CLIP), also DARE-TIES. Its
        parameters (density, lambda, scope, ...) and weights are given as if it were used alone.
stack   which side has the common directions; `outputs` is concat_across_output=True, the code's default.

P_i is U' delta_i, so nothing is lost and its columns are inputs of the layer, as in the released code. The
code decomposes the dense deltas in float64; here U comes from an R x R matrix, R the sum of the ranks, and
the P_i are made from the factors, rows at a time. A method that is a plain weighted sum gives the same here
as on the deltas; for others the coordinates matter. The sign of each direction of U, free in an SVD, is such
that its entry of largest magnitude is positive. The code keeps S > 0.00001, which depends on the scale of the
deltas; here S above 2^-24 of the largest, the rounding of float32. Methods that look at rows see directions
as rows with `outputs`, and outputs of the layer with `inputs`.

Core Space's code has another method under this name: it merges V_i and multiplies by S afterwards.

Source: Stoica et al., "Model merging with SVD to tie the KnOTS", ICLR 2025, arXiv:2410.19735 and
github.com/gstoica27/KnOTS (task_merger.py, configs/vitB_r16_knots_ties.py).
"""

import numpy as np

from pamctl.merging.methods.method import Bases, Coordinates, Float64, Method, Parameter, Projected, Settings
from pamctl.merging.methods.spectrum import directions, rank

INNER = Parameter(
    "inner",
    "method that merges the coordinates",
    "ties",
    choices=(
        "ties",
        "dare-ties",
        "dare-linear",
        "della",
        "della-linear",
        "breadcrumbs",
        "breadcrumbs-ties",
        "magnitude-prune",
        "magmax",
        "sce",
        "average",
        "task-arithmetic",
    ),
)


def project(bases: Bases, settings: Settings) -> Coordinates:
    """The inputs along their shared directions, see `Projected`."""
    pairs = list(zip(bases.b_parts, bases.a_parts, strict=True))
    if settings["stack"] == "outputs":
        stacked = np.hstack([b @ triangle(a.T) for b, a in pairs])
        left = directions(stacked, bases.left, rank(stacked))
        return Coordinates([(left.T @ b, a @ bases.right.T) for b, a in pairs], left=bases.left @ left)
    stacked = np.hstack([a.T @ triangle(b) for b, a in pairs])
    right = directions(stacked, bases.right, rank(stacked))
    return Coordinates([(bases.left @ b, a @ right) for b, a in pairs], right=(bases.right @ right).T)


def triangle(factor: Float64) -> Float64:
    """L of `factor`.T = L Q, Q with orthonormal rows: x L has the left singular vectors of x L Q."""
    return np.linalg.qr(factor)[1].T


METHOD = Method(
    name="knots",
    title="another method (TIES, DARE, ..) along the directions that the stacked deltas share (KnOTS)",
    work=Projected(project),
    parameters=(
        INNER,
        Parameter("stack", "side that has the common directions", "outputs", choices=("outputs", "inputs")),
    ),
    spaces=("delta",),
)
