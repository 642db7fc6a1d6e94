"""The weighted sum of the deltas, scaled as a whole.

    x = lambda · sum w_i x_i

A delta is what fine-tuning added to the base, so that a sum of them adds tasks and a negative weight makes
the model forget one.

Parameters:
  lambda  scale of the result, without a unit; 1 by default. The paper picks one for all tasks together, on
          held-out data.

Weights are taken as given, by default 1 each. In mergekit this is `task_arithmetic` with normalize = false,
its default; with normalize = true it is `linear` in the variant `mergekit`, times lambda.

Source: Editing Models with Task Arithmetic, arXiv 2212.04089.
"""

from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings


def _scaled(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    return float(settings["lambda"]) * weights


METHOD = Method(
    name="task-arithmetic",
    title="the weighted sum, scaled as a whole",
    work=Combination(_scaled, uses_gram=False),
    parameters=(Parameter("lambda", "scale of the result", 1.0),),
)
