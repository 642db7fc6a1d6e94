"""Drop elements at random, scale up the others, and sum.

    t_i    = x_i / density, kept with the probability `density`, else 0
    result = lambda · sum w_i t_i

The expected result is the weighted sum. Each adapter's draw is its own and depends on the seed, the
adapter and the place in it, not on the order of the adapters.

Variants:
  paper     as above; peft's dare_linear is the same at lambda 1.
  mergekit  in place of the division by `density`, what is kept of a tensor is scaled so that the sum of its
            magnitudes is that of the whole tensor.

Parameters:
  density  probability that an element is kept, above 0 to 1; 0.5 by default, since no source names one
           for all uses (the paper drops up to 0.9 and more). 1 makes this the weighted sum.
  rescale  false: what is kept stays as it is.
  lambda   scale of the result.

Weights are as given, by default 1 each, and may be negative.

Sources: Language Models are Super Mario (DARE), arXiv 2311.03099; huggingface/peft, utils/merge_utils.py;
arcee-ai/mergekit, sparsify.py.
"""

from typing import Any

from pamctl_kernels import weighted_average

from pamctl.merging.methods.dare import measure, thinned
from pamctl.merging.methods.dropping import RESCALE
from pamctl.merging.methods.method import Elementwise, Float64, Method, Piece, Settings
from pamctl.merging.methods.scale import LAMBDA
from pamctl.merging.methods.trimming import density_parameter


def _merge(piece: Piece, weights: Float64, settings: Settings, ratios: list[float] | None) -> Any:
    return weighted_average(thinned(piece, settings, ratios), weights * settings["lambda"])


METHOD = Method(
    name="dare-linear",
    title="drop at random, scale up, then the weighted sum",
    work=Elementwise(_merge, measure),
    parameters=(density_parameter(0.5, above=0.0), RESCALE, LAMBDA),
    variants=("paper", "mergekit"),
    random=True,
)
