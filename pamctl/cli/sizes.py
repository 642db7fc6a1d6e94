"""Sizes in bytes as options take them."""

import re
from typing import Any

import click

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType):
    """A number of bytes, or of KiB, MiB, GiB or TiB: 1048576, 512M, 2G, 1.5GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is not a size, as 512M or 2G", param, ctx)
        size = float(found[1]) * _UNITS[found[2].upper()]
        if size >= 1 << 63:
            self.fail(f"{value[:20]}... is more than any machine has", param, ctx)
        return int(size)
