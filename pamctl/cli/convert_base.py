"""`pamctl convert-base`: a base model as a Hugging Face folder."""

from pathlib import Path

import click

from pamctl.cli.sizes import Size


@click.command("convert-base")
@click.argument("base", metavar="MODEL")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["f32", "f16", "bf16"]),
    help="How numbers are stored. [default: as in MODEL]",
)
@click.option(
    "--max-shard-size",
    type=Size(),
    default="5GB",
    show_default=True,
    help="A file of weights is no larger, unless one tensor is.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be done, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert_base(
    base: str,
    output: Path,
    dtype: str | None,
    max_shard_size: int,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a folder that transformers and pamctl load whole.

    MODEL is a folder in Hugging Face layout of any release, an .npz of big_vision with the tokenizer.json
    beside it, a Hub name, or tiny for the embedded one.

    \b
    Examples:
      pamctl convert-base tiny -o tiny-bf16 --dtype bf16
      pamctl convert-base tiny -o tiny-f32 --dry-run
    """
    from pamctl.cli.output import print_json, print_result, say
    from pamctl.models.base_export import export_base, plan_base_export, refuse_taken
    from pamctl.models.checkpoint import open_checkpoint

    refuse_taken(output, force=force)
    checkpoint = open_checkpoint(base)
    for note in checkpoint.notes:
        say(note)
    export = plan_base_export(checkpoint, dtype, max_shard_size)
    say(
        f"{checkpoint.name}: {export.tensors} tensors, {', '.join(export.dtypes)}, {export.bytes:,} bytes in "
        + ", ".join(export.files)
    )
    if not dry_run:
        export_base(export, output, force=force)
    if as_json:
        facts = {
            "base": checkpoint.name,
            "tensors": export.tensors,
            "dtypes": export.dtypes,
            "bytes": export.bytes,
            "files": export.files,
        }
        print_json("convert-base", {"output": None if dry_run else str(output), **facts})
    elif not dry_run:
        print_result(output)
