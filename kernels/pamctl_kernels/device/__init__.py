"""The kernels on jax arrays: jitted, exact by integer arithmetic on the bits, which flush no subnormals."""

from pamctl_kernels.device import stream
from pamctl_kernels.device.agreement import elect_signs, merge_agreeing, trim
from pamctl_kernels.device.average import weighted_average
from pamctl_kernels.device.realignment import realign, sign_conflicts
from pamctl_kernels.device.threshold import magnitude_threshold

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
