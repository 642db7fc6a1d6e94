"""Take from each adapter its outliers and its smallest elements, elect a sign, merge those that have it.

    t_i    = x_i without its largest elements, a share `gamma`, and of the rest only the largest, a share
             `density` of all
    sign   = sign of sum w_i t_i
    result = lambda · sum over agreeing i of w_i t_i / sum over agreeing i of w_i

It is `breadcrumbs`, see there, with the election of TIES. The paper itself only sums.

Variants:
  paper     the paper's masks, whose shares are of each row, and TIES' mean.
  mergekit  shares of the tensor; those that agree are summed (its normalize is false here), so that N
            copies of one adapter give one back at weights 1/N.

Parameters:
  density, gamma       as in `breadcrumbs`.
  sign, merge, lambda  as in `ties`.

Weights are as given, by default 1 each; none may be negative where a mean divides by them. A sum of 0
elects +, and there alone negating all adapters does not negate the result.

Sources: Model Breadcrumbs, arXiv 2312.06795; TIES-Merging, arXiv 2306.01708; arcee-ai/mergekit,
merge_methods/registry.py, breadcrumbs_ties.
"""

from dataclasses import replace
from typing import Any

from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.outliers import GAMMA, measure, without_outliers
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.sign_election import SIGN, merge_elected, merge_parameter
from pamctl.merging.methods.trimming import density_parameter


def _merge(piece: Piece, weights: Float64, settings: Settings, bands: Any) -> Any:
    return merge_elected(replace(piece, blocks=without_outliers(piece, settings, bands)), weights, settings)


METHOD = Method(
    name="breadcrumbs-ties",
    title="neither the largest elements nor the smallest, elect a sign, merge those that agree",
    work=Elementwise(_merge, measure),
    parameters=(
        density_parameter(0.15),
        GAMMA,
        SIGN,
        merge_parameter(by_variant={"mergekit": "sum"}),
        LAMBDA,
    ),
    variants=("paper", "mergekit"),
)
