"""The weighted sum of the adapters.

    paper     x = sum w_i x_i                   the weights as given, by default 1 each
    mergekit  x = sum w_i x_i / sum w_i         a sum of weights that is 0 is refused
    peft      A = sum sign(w_i s_i) sqrt|w_i s_i| A_i,  B = sum sqrt|w_i s_i| B_i,  result B A

Weights may be negative: -1 takes an adapter away. In delta space `paper` and `mergekit` are exact whatever
the scales and ranks are.

`peft` is there to compare with `add_weighted_adapter(combination_type="linear")` and works in factor space
only. It is no linear function of the deltas, for B A holds the product of every B_i with every other A_j:
with one adapter it is exact, but N equal adapters come out (sum sqrt(w_i))^2 times as strong as one, which is
twice as strong at the weights 0.5 and 0.5, and unrelated ones come out with an error as large as the result.
Any sum of factors has such cross terms; kohya's merge_lora.py without --concat has them with the weights
themselves on both sides.

Sources: arcee-ai/mergekit, merge_methods/linear.py (normalize = true); huggingface/peft,
tuners/lora/model.py; kohya-ss/sd-scripts, networks/merge_lora.py.
"""

from pamctl.merging.methods.method import Combination, Float64, Method, Settings
from pamctl.merging.methods.weighting import normalised


def _weights(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    return normalised(weights, "linear") if settings["variant"] == "mergekit" else weights


METHOD = Method(
    name="linear",
    title="the weighted sum",
    work=Combination(_weights, uses_gram=False),
    variants=("paper", "mergekit", "peft"),
    spaces_of_variants={"peft": ("factor",)},
)
