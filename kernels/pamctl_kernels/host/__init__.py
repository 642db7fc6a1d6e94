"""The kernels on host arrays: numpy, one cache-sized block after the other, exact on the bits."""

from pamctl_kernels.host import stream
from pamctl_kernels.host.agreement import elect_signs, merge_agreeing, trim
from pamctl_kernels.host.average import weighted_average
from pamctl_kernels.host.realignment import realign, sign_conflicts
from pamctl_kernels.host.threshold import magnitude_threshold

__all__ = [
    "elect_signs",
    "magnitude_threshold",
    "merge_agreeing",
    "realign",
    "sign_conflicts",
    "stream",
    "trim",
    "weighted_average",
]
