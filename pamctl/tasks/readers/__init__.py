"""Readers of data as it was released, one file each, found by the name of the file."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pamctl.tasks.releases import Reader


@cache
def readers() -> Mapping[str, Reader]:
    """Every reader by the name that a TOML calls it by."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    found = [import_module(f"{__name__}.{name}").READER for name in names]
    return {reader.name: reader for reader in found}
