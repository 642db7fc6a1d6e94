"""The merging methods, one file each, by name."""

from importlib import import_module
from types import ModuleType

from pamctl.merging.methods.method import Method
from pamctl.refusal import UsageRefusal

NAMES = (
    "average",
    "running-average",
    "linear",
    "task-arithmetic",
    "cat",
    "svd",
    "ties",
    "magnitude-prune",
    "dare-linear",
    "dare-ties",
    "della",
    "della-linear",
    "breadcrumbs",
    "breadcrumbs-ties",
    "magmax",
    "tall",
    "consensus",
    "sce",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "nearswap",
    "model-stock",
    "knots",
    "core",
    "tsv",
    "iso-c",
    "iso-cts",
    "cart",
    "opcm",
)
"""In the order in which they are listed: from plain sums to elements, directions and spectra."""


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        UsageRefusal: there is none.
    """
    if name not in NAMES:
        raise UsageRefusal(f"method is {name!r}", f"choose one of {', '.join(NAMES)}")
    method: Method = _module(name).METHOD
    return method


def explanation(name: str) -> str:
    """The formula, parameters, units and source of a method: its file's docstring.

    Raises:
        UsageRefusal: there is no method of this name.
    """
    method_named(name)
    return (_module(name).__doc__ or "").strip()


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
