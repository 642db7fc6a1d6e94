"""The mean over all tasks: the first adapter is the mean of `count` of them, each other adapter is one.

    x = (count · x_1 + x_2 + ... + x_k) / (count + k - 1)

With one new task, the t-th, these are the weights (t - 1)/t and 1/t, so that every task counts the same in
the end, whereas averaging in halves leaves 2^-(T-1) of the first of T tasks.

Parameters:
  count  how many tasks the first adapter is the mean of, a whole number of at least 1. By default the number
         of tasks that its record (`pamctl.json`) names.

It takes no weights, as the counts are the weights; `average` takes any. The order matters: the mean comes
first. In factor space it is applied to A and to scale · B apart from each other, as `average` is.

Source: the arithmetic mean in its recursive form; PAM (Algorithm 1) always takes 1/2.
"""

import numpy as np

from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings
from pamctl.merging.methods.weighting import refuse_weights
from pamctl.refusal import UsageRefusal


def _by_count(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    refuse_weights(weights, "running-average", "leave the weights out and give count, or use average")
    count = settings["count"]
    if count is None:
        raise UsageRefusal(
            "running-average: no record says of how many tasks the first adapter is the mean",
            "give count, the number of tasks that are in the first adapter",
        )
    tasks = np.ones_like(weights)
    tasks[0] = count
    return tasks / tasks.sum()


METHOD = Method(
    name="running-average",
    title="the mean over all tasks, the first adapter being the mean of those before",
    idempotent=True,
    work=Combination(_by_count, uses_gram=False),
    parameters=(
        Parameter(
            "count",
            "number of tasks in the first adapter; by default those its record names",
            None,
            least=1,
            whole=True,
        ),
    ),
    symmetric=False,
    least=2,
)
