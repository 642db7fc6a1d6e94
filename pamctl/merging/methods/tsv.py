"""Task singular vectors: the strongest directions of each input, made orthogonal to those of the others.

    U_i S_i V_i = SVD of w_i delta_i, its k largest singular values
    U = [U_1 .. U_N], S = diag(S_1 .. S_N), V = [V_1; ..; V_N]
    delta = alpha · polar(U) S polar(V),  polar(X) = P Q for X = P D Q (Procrustes)

alpha   scale of the result; the paper uses 1.
k       directions kept of each input; by default floor(R / N), at least 1, where R is the smaller side of
        the delta or the sum of the inputs' ranks, whichever is less.
weights multiply the deltas; 1 each by default.

The paper merges full fine-tunes and takes k = floor(min(outputs, inputs) / N), so that all N k vectors can
be orthogonal. The delta of an adapter has only `rank` directions; more of its singular vectors are arbitrary
ones of its null space, which orthogonalising would mix in. So R counts the directions that exist: N adapters
of one rank r keep all r of theirs, as in Core Space, and of unequal ranks each keeps at most an equal share;
give a larger k to keep the whole of the largest. Vectors in the span of others keep no direction of their
own, so N copies of an adapter merge to that adapter as long as their ranks together are no more than the
smaller side; one input gives itself. The result has rank at most N k.

Source: TSV-M in Gargiulo et al., "Task Singular Vectors", CVPR 2025, arXiv:2412.00081, section 4 and
github.com/AntoAndGar/task_singular_vectors; on LoRA in the core, arXiv:2509.17786.
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
    k = settings["k"] or max(1, available_rank(inputs, shape) // len(inputs))
    triples = [svd(core) for core in inputs]
    left = np.hstack([u[:, :k] for u, _, _ in triples])
    singular = np.concatenate([s[:k] for _, s, _ in triples])
    right = np.vstack([v[:k] for _, _, v in triples])
    merged: Float64 = settings["alpha"] * (polar(left) * singular) @ polar(right)
    return merged


METHOD = Method(
    name="tsv",
    title="the strongest singular directions of each adapter, orthogonalised against the others' (TSV-M)",
    work=Spectral(merge),
    parameters=(
        Parameter("alpha", "scale of the result", 1.0),
        Parameter(
            "k",
            "singular directions kept of each adapter; by default an equal share",
            None,
            least=1,
            whole=True,
        ),
    ),
    spaces=("delta",),
)
