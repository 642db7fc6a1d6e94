"""The kernels on host arrays: numpy, one cache-sized block after the other, exact on the bits."""

from pamctl_kernels.host.agreement import elect_signs, merge_agreeing, trim
from pamctl_kernels.host.average import weighted_average
from pamctl_kernels.host.realignment import realign, sign_conflicts
from pamctl_kernels.host.stream import Histogram, kth_largest_by_bracket
from pamctl_kernels.host.threshold import magnitude_threshold

__all__ = [
    "Histogram",
    "elect_signs",
    "kth_largest_by_bracket",
    "magnitude_threshold",
    "merge_agreeing",
    "realign",
    "sign_conflicts",
    "trim",
    "weighted_average",
]
