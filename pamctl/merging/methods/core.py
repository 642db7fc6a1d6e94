"""Core Space: another method, on small matrices that hold the deltas in bases of all A and of all B.

    U = left singular vectors of [s_1 B_1 .. s_N B_N],  V = right singular vectors of [A_1; ..; A_N]
    M_i = U' delta_i V  (R x R),  delta = U merge(M) V'

inner   the method that merges the M_i. Its parameters (density, lambda, scope, ...) and weights are given as
        if it were used alone. TSV, Iso-C and CART do not depend on the basis and run in the core anyway:
        use them by their own names.

Nothing is lost: every delta is U M_i V'. R is the sum of the ranks, which may differ, or what the columns of
all B and the rows of all A span where that is less, as for an adapter given twice; so M need not be square.
The released code fills up with arbitrary vectors, along which all M_i are 0 but which count in a density. A
method that is a plain weighted sum gives the same here as on the deltas. Others depend on the bases, so these
are fixed: strongest direction first, the entry of largest magnitude in each, as a vector of the layer's
outputs or inputs, positive. They come from the factors, as in the paper: factors that share out a delta
differently between A and B give other bases. The scale is counted with B; the released code has none. The
code merges module by module: that is scope = tensor.

Source: Panariello et al., "Accurate and Efficient Low-Rank Model Merging in Core Space", NeurIPS 2025,
arXiv:2509.17786 and github.com/apanariello4/core-space-merging (task_merger.py).
"""

import numpy as np

from pamctl.merging.methods.knots import INNER
from pamctl.merging.methods.method import Bases, Coordinates, Method, Projected, Settings
from pamctl.merging.methods.spectrum import directions, span_rank


def project(bases: Bases, settings: Settings) -> Coordinates:
    """The inputs in the core of all, see `Projected`."""
    outputs, inputs = np.hstack(bases.b_parts), np.hstack([a.T for a in bases.a_parts])
    left = directions(outputs, bases.left, span_rank(outputs))
    right = directions(inputs, bases.right, span_rank(inputs))
    factors = [(left.T @ b, a @ right) for b, a in zip(bases.b_parts, bases.a_parts, strict=True)]
    return Coordinates(factors, bases.left @ left, (bases.right @ right).T)


METHOD = Method(
    name="core",
    title="another method (TIES, DARE, ..) on small matrices in bases of all A and of all B (Core Space)",
    work=Projected(project, scope="tensor"),
    parameters=(INNER,),
    spaces=("delta",),
)
