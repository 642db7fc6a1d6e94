"""Take from each adapter its outliers and its smallest elements, and sum what is left.

    t_i    = x_i without its largest elements, a share `gamma`, and of the rest only the largest, a share
             `density` of all
    result = lambda · sum w_i t_i

Where magnitudes tie at an end of what is kept, all that tie are kept. With gamma 0 it is plain trimming.
At least one element is kept where density is above 0.

Variants:
  paper     both shares are of each row. At density 1 the outliers are still taken away.
  mergekit  both shares are of the tensor; fewer outliers are taken where else too few elements were left
            to make up the density, so that at density 1 everything is kept.

Parameters:
  density  share of its elements that an adapter keeps, 0 to 1. 0.15 by default, where the paper's own search
           starts; mergekit itself has 1.
  gamma    share of its elements, the largest, that an adapter loses; 0.01 by default as in mergekit. A row or
           tensor of fewer than 1 / gamma elements loses none.
  lambda   scale of the result: the paper's alpha, which it tunes.

Weights are as given, by default 1 each, and may be negative.

Sources: Model Breadcrumbs, arXiv 2312.06795, and rezazzr/breadcrumbs; arcee-ai/mergekit, sparsify.py.
"""

from typing import Any

from pamctl_kernels import weighted_average

from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.outliers import GAMMA, measure, without_outliers
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.trimming import density_parameter


def _merge(piece: Piece, weights: Float64, settings: Settings, bands: Any) -> Any:
    return weighted_average(without_outliers(piece, settings, bands), weights * settings["lambda"])


METHOD = Method(
    name="breadcrumbs",
    title="neither the largest elements nor the smallest, then the weighted sum",
    work=Elementwise(_merge, measure),
    parameters=(density_parameter(0.15), GAMMA, LAMBDA),
    variants=("paper", "mergekit"),
)
