"""`pamctl convert`: one adapter in another format, dtype, rank or spelling."""

from pathlib import Path

import click

from pamctl.cli.adapter_options import allow_pickle_option, writing_options
from pamctl.cli.push import push_option


@click.command()
@click.argument("adapter")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder to write; for kohya and diffusers also a .safetensors file.",
)
@writing_options
@click.option("--rank", type=click.IntRange(min=1), help="Truncate to this rank. [default: exact]")
@click.option(
    "--names-from", metavar="ADAPTER", help="Take module names from this adapter of the same model."
)
@allow_pickle_option
@push_option
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be done, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(
    adapter: str,
    output: Path,
    format_: str,
    dtype: str | None,
    compact: bool,
    spelling: str,
    rank: int | None,
    names_from: str | None,
    allow_pickle: bool,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write ADAPTER in another format, dtype, rank or spelling, with the same effect.

    ADAPTER may be in any format: peft, kohya, diffusers, mlx, orbax, a legacy .bin; on disk or on the Hub.
    The scale is folded into the factors, so that alpha equals the rank and no reader has to guess.

    \b
    Examples:
      pamctl convert merged -o merged-mlx --format mlx
      pamctl convert merged -o merged.safetensors --format kohya --dtype f16
      pamctl convert merged -o small --rank 4 --dry-run
    """
    from pamctl.cli.blas import use_one_thread

    use_one_thread()
    from pamctl.adapters.formats import refuse_taken, refuse_unwritable
    from pamctl.cli.adapter_options import opened, size_of, write_options, write_out
    from pamctl.cli.output import print_json, print_result, say
    from pamctl.conversion import convert as convert_adapter

    refuse_taken(output, force=force)
    source = opened(adapter, allow_pickle)
    if names_from:
        from pamctl.adapters.matching import renamed_like

        source = renamed_like(source, opened(names_from, allow_pickle))
    converted, options = convert_adapter(source, rank), write_options(dtype, compact, spelling)
    refuse_unwritable(converted.adapter, output, format_, options)
    size = size_of(converted.adapter, options)
    read_from = source.origin.format if source.origin else "an adapter"
    say(
        f"{read_from} to {format_}: {size['modules']} modules, rank {size['rank']}, {size['dtype']}, "
        f"{size['bytes']:,} bytes"
    )
    outcome = write_out(
        converted.adapter,
        lambda: converted.truncation.retained_energy if converted.truncation else None,
        output,
        format_,
        options,
        push_to=push_to,
        force=force,
        dry_run=dry_run,
    )
    if as_json:
        print_json("convert", {"from": read_from, **outcome, **size})
    elif not dry_run:
        print_result(output)
