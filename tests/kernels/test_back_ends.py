"""Which back-end an array gets, and in what process: without jax, and on eight devices."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_JAX = """
import sys, ml_dtypes, numpy as np, pamctl_kernels as kernels
for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
    w, g = {"a": [np.ones((2, 30_000), dtype)]}, {"a": [-np.ones((2, 30_000), dtype)]}
    tau = kernels.magnitude_threshold(g, 50)
    assert tau == 1 and kernels.sign_conflicts(w, g, tau)["a"][0].all()
    aligned, count = kernels.realign(w, g, tau)
    assert count == 60_000 and not kernels.weighted_average([w, aligned], [0.5, 0.5])["a"][0].any()
    assert kernels.trim(w, 2)["a"][0].sum() == 0 and kernels.elect_signs([w, w, g])["a"][0].all()
    assert kernels.merge_agreeing([w, w, g])["a"][0].all()
    assert kernels.kth_largest_magnitudes([(w["a"][0],)] * 2, lambda n: n) == (1,)
assert "jax" not in sys.modules and "pamctl" not in sys.modules
print("all held")
"""


def run(*arguments: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_host_arrays_are_worked_on_without_jax() -> None:
    assert run("-c", WITHOUT_JAX) == "all held\n"


def test_the_device_programs_hold_on_eight_devices() -> None:
    script = Path(__file__).with_name("on_eight_devices.py")
    flags = "--xla_force_host_platform_device_count=8"
    assert run(str(script), JAX_PLATFORMS="cpu", XLA_FLAGS=flags) == "all held\n"
