"""The weighted mean of the adapters; of factors it is PAM's own merge.

    x = sum w_i x_i / sum w_i

The weights are at least 0, by default all equal. An adapter that lacks a module counts there as zero.

In delta space x is scale · B · A, and the result is exact. In factor space the formula is applied to A and to
scale · B apart from each other, which is what PAM does with the global and the task adapter after every task
(Algorithm 1, w = 1/2) and what `Avg` means in its tables. The two differ by

    mean(delta) - mean(B) mean(A) = sum w_i (B_i - mean B)(A_i - mean A)        (sum w_i = 1, scales in B)

that is, by the square of how far the adapters have moved from each other: little where one was trained from
the other, everything where they started apart.

Taken pairwise after each of T tasks, w = 1/2 leaves the weight 2^-(T-t+1) to task t, and 2^-(T-1) to the
first. `running-average` gives all tasks the same.

Source: PAM, Algorithm 1. Model soups (arXiv 2203.05482) are the same mean of whole models.
"""

from pamctl.merging.methods.method import Combination, Float64, Method, Settings


def _shares(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    return weights


METHOD = Method(
    name="average",
    title="the weighted mean; of factors it is PAM's merge",
    idempotent=True,
    work=Combination(_shares, uses_gram=False),
    shares=True,
)
