"""The weighted sum of the deltas, cut to the largest rank among the adapters.

    D = sum w_i s_i B_i A_i = U S V^T,   result = U_k S_k V_k^T

This is the nearest delta of rank k in the sum of squares (Eckart-Young). It is found from the factors, by QR
of both sides and the SVD of a core as large as all ranks together, and equals the SVD of the dense sum.

Weights are taken as given, by default 1 each. Another rank or a share of energy may be asked for.

Parameters:
  clamp  a quantile, above 0.5 and at most 1; by default nothing is clamped. Both factors of the result are
         limited to [-h, h], where h is this quantile of the elements of B = U_k S_k and A = V_k^T taken
         together with their signs. It bounds outliers at the price of the best approximation.

kohya's svd_merge_lora.py always clamps at 0.99. PEFT up to 0.20.0 multiplied by the scale twice, so that it
returned sum w_i s_i^2 B_i A_i; its current formula is the one above.

Sources: huggingface/peft, tuners/lora/model.py, combination_type "svd"; kohya-ss/sd-scripts,
networks/svd_merge_lora.py.
"""

from pamctl.merging.methods.method import Combination, Float64, Method, Parameter, Settings


def _as_given(gram: Float64 | None, weights: Float64, settings: Settings) -> Float64:
    return weights


METHOD = Method(
    name="svd",
    title="the weighted sum, cut to the largest rank of the inputs",
    work=Combination(_as_given, uses_gram=False),
    parameters=(
        Parameter(
            "clamp", "quantile at which both factors are clamped; none by default", None, above=0.5, most=1
        ),
    ),
    spaces=("delta",),
    input_rank=True,
)
