"""The exact weighted sum of the deltas, at the sum of the adapters' ranks.

    A = [A_1; A_2; ...],  B = [w_1 s_1 B_1, w_2 s_2 B_2, ...],  B A = sum w_i s_i B_i A_i

Nothing is lost and nothing is decomposed: the factors stand side by side, so that the result has as many
ranks as all inputs together. `linear` makes the same delta, at a rank that can be asked for; `svd` cuts it.

Weights are taken as given, by default 1 each, and may be negative. Only the deltas can be added in this way.

PEFT puts w_i s_i on A instead of B, which is the same delta. kohya's merge_lora.py --concat puts the ratio on
both sides and keeps alpha at the larger rank, so that its result is weaker than the sum.

Source: huggingface/peft, tuners/lora/model.py, combination_type "cat".
"""

from pamctl.merging.methods.method import Combination, Float64, Method, Settings


def _as_given(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    return weights


METHOD = Method(
    name="cat",
    title="the exact weighted sum, at the sum of the ranks",
    work=Combination(_as_given, uses_gram=False),
    spaces=("delta",),
    exact_rank=True,
)
