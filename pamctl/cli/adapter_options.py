"""The options that commands share: how an adapter is opened, and how one is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pamctl.cli.push import pushed_to, say_where_it_would_be_pushed

if TYPE_CHECKING:
    from pamctl.adapters import Adapter
    from pamctl.adapters.formats.written import WriteOptions

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


@dataclass(frozen=True)
class Output:
    """How an adapter is to be written.

    Args:
        told: what of it was chosen, by the names of the options.
    """

    format: str
    options: "WriteOptions"
    told: Mapping[str, Any]


def chosen_output(said: Mapping[str, Any], flags: Mapping[str, Any]) -> Output:
    """How to write: as the flags say where they were given, else as a recipe says.

    Args:
        said: the recipe's table `output`.
        flags: `format`, `dtype`, `compact` and `spelling` with the values that click has for them.

    Raises:
        UsageRefusal: the recipe says something that the flags could not.
    """
    from pamctl.refusal import UsageRefusal

    context = click.get_current_context()
    by_name = {option.name: option for option in context.command.params if isinstance(option, click.Option)}
    values, told = dict(flags), dict[str, Any]()
    for name, value in said.items():
        option = by_name.get("format_" if name == "format" else name)
        if name not in flags or option is None:
            raise UsageRefusal(f"a recipe's output has no {name!r}", f"it has {', '.join(flags)}")
        if value is None:
            raise UsageRefusal(f"output: {name} has no value", "leave it out")
        try:
            values[name] = option.type_cast_value(context, value)
        except click.BadParameter as fault:
            raise UsageRefusal(f"output: {name} is {value!r}", fault.message) from fault
        told[name] = values[name]
    for name, value in flags.items():
        source = context.get_parameter_source("format_" if name == "format" else name)
        if source is not ParameterSource.DEFAULT:
            values[name] = told[name] = value
    options = write_options(values["dtype"], values["compact"], values["spelling"])
    return Output(values["format"], options, told)


def write_out(
    adapter: "Adapter",
    retained_energy: Callable[[], float | None],
    output: Path,
    format: str,
    options: "WriteOptions",
    *,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    beside: Mapping[str, str] | None = None,
    expected: str | None = None,
) -> dict[str, Any]:
    """Write what a command made and push it, or in a dry run neither; gives what `--json` tells of that.

    Args:
        retained_energy: the share of the squared norm that was kept, asked for when all is written.
        beside, expected: see `write_adapter`.
    """
    from pamctl.adapters import write_adapter
    from pamctl.cli.output import say

    outcome = {"output": None, "format": format, "retained_energy_percent": None, "pushed": None}
    if dry_run:
        say_where_it_would_be_pushed(push_to)
        return outcome
    write_adapter(adapter, output, format, options, force=force, beside=beside, expected=expected)
    retained = retained_energy()
    if retained is not None:
        retained *= 100
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
