"""The options that commands share: how an adapter is opened, and how one is written."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pamctl.cli.push import pushed_to, say_where_it_would_be_pushed

if TYPE_CHECKING:
    from pamctl.adapters import Adapter
    from pamctl.adapters.formats.written import WriteOptions
    from pamctl.merging.truncation import Truncation

allow_pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read legacy .bin files too, as tensors and nothing else: no code in them is run.",
)

_WRITING = (
    click.option(
        "--format",
        "format_",
        type=click.Choice(["peft", "kohya", "diffusers", "mlx", "orbax"]),
        default="peft",
        show_default=True,
        help="The format to write.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["f32", "f16", "bf16"]),
        help="How numbers are stored. [default: as the input's, but f32 for f16 that are scaled, merged or "
        "truncated, for which f16 has too small a range]",
    ),
    click.option("--compact", is_flag=True, help="Keep each module's own rank instead of padding to one."),
    click.option(
        "--spelling",
        type=click.Choice(["4.51", "4.57", "5"]),
        default="4.57",
        show_default=True,
        help="Spell modules as this release of transformers; every later one restores 4.57.",
    ),
)


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--format`, `--dtype`, `--compact` and `--spelling`."""
    for option in reversed(_WRITING):
        command = option(command)
    return command


def write_options(dtype: str | None, compact: bool, spelling: str) -> "WriteOptions":
    """What those flags mean."""
    from pamctl.adapters.formats.written import WriteOptions

    return WriteOptions(dtype.upper() if dtype else None, compact, spelling)


def size_of(adapter: "Adapter", options: "WriteOptions") -> dict[str, Any]:
    """How large an adapter will be as written, known before any number is read."""
    from pamctl.adapters.formats.written import WrittenFactors

    factors = WrittenFactors(adapter, options)
    shapes = factors.shapes.values()
    return {
        "modules": len(shapes),
        "rank": max(shape.rank for shape in shapes),
        "dtype": factors.dtype,
        "bytes": sum(shape.bytes for shape in shapes) + sum(extra.bytes for extra in adapter.extras.values()),
    }


def write_out(
    adapter: "Adapter",
    truncation: "Truncation | None",
    output: Path,
    format: str,
    options: "WriteOptions",
    *,
    push_to: str | None,
    force: bool,
    dry_run: bool,
) -> dict[str, Any]:
    """Write what a command made and push it, or in a dry run neither; gives what `--json` tells of that."""
    from pamctl.adapters import write_adapter
    from pamctl.cli.output import say

    outcome = {"output": None, "format": format, "retained_energy_percent": None, "pushed": None}
    if dry_run:
        say_where_it_would_be_pushed(push_to)
        return outcome
    write_adapter(adapter, output, format, options, force=force)
    retained = None
    if truncation:
        retained = 100 * truncation.retained_energy
        say(f"rank {adapter.rank} keeps {retained:.4f} % of the delta's energy")
    return {
        **outcome,
        "output": str(output),
        "retained_energy_percent": retained,
        "pushed": pushed_to(push_to, output),
    }


def opened(reference: str, allow_pickle: bool = False) -> "Adapter":
    """Open an adapter and warn of what the user should know before trusting it."""
    from pamctl.adapters import open_adapter
    from pamctl.cli.output import warn

    adapter = open_adapter(reference, allow_pickle=allow_pickle)
    for note in adapter.notes:
        warn(f"{reference}: {note}")
    return adapter
