"""Options that say how a base model is held in memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def held_options(command: F) -> F:
    """Add --dtype, --quantize and --fsdp."""
    options = (
        click.option(
            "--dtype",
            type=click.Choice(["f32", "bf16", "f16"]),
            help="The base's numbers in memory. [default: the base's own, else bf16]",
        ),
        click.option(
            "--quantize", type=click.Choice(["nf4"]), help="Hold the matrices of the base's layers in 4 bits."
        ),
        click.option(
            "--fsdp",
            type=int,
            metavar="N",
            help="Devices that the base is sharded over. [default: as few as it fits on]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
