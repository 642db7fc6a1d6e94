"""Where dense work is done: on the host by numpy, or on an accelerator by jax."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pamctl.refusal import UsageRefusal

Device = Literal["auto", "cpu", "gpu", "tpu"]


@dataclass(frozen=True)
class Place:
    """Where arrays are worked on.

    Args:
        put: moves an array of the host there.
        elements: how many a block is to have: what a core's cache holds, or enough to keep a device busy.
    """

    put: Callable[[Any], Any]
    elements: int


HOST = Place(lambda array: array, 1 << 17)
_DEVICE_ELEMENTS = 1 << 25

_SIGNS: dict[Device, tuple[str, tuple[str, ...]]] = {
    "gpu": ("/dev/nvidia[0-9]*", ("jax_cuda12_plugin", "jax_cuda13_plugin")),
    "tpu": ("/dev/accel*", ("libtpu",)),
}


def chosen_device(asked: Device, *, pays: bool) -> Device:
    """The device to use; jax is imported for none of this.

    Args:
        asked: `auto` takes an accelerator that is there and for which jax is installed, if it pays.
        pays: whether there is dense work: sums of factors are done before data has reached a device.
    """
    if asked != "auto":
        return asked
    for device, (pattern, plugins) in _SIGNS.items():
        there = any(Path("/").glob(pattern.removeprefix("/")))
        if pays and there and any(map(importlib.util.find_spec, plugins)):
            return device
    return "cpu"


def place_on(device: Device) -> Place:
    """A device as a place to work; on the CPU arrays stay as they are.

    Raises:
        UsageRefusal: jax finds no such device.
    """
    if device == "cpu":
        return HOST
    import jax

    try:
        found = jax.devices("cuda" if device == "gpu" else device)[0]
    except RuntimeError as fault:
        raise UsageRefusal(
            f"jax finds no {device} here, only {jax.devices()[0].platform}",
            f"leave --device out, or install pamctl[{'cuda' if device == 'gpu' else 'tpu'}]",
        ) from fault
    return Place(lambda array: jax.device_put(array, found), _DEVICE_ELEMENTS)


def matmul(x: Any, y: Any) -> Any:
    """x @ y with every digit of float32, which an accelerator does not give unless it is asked to."""
    if isinstance(x, np.ndarray):
        return x @ y
    return x.__array_namespace__().matmul(x, y, precision="highest")
