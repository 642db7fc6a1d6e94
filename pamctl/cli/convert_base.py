"""`pamctl convert-base`: a base model, with an adapter folded in or as it is, as a Hugging Face folder."""

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
@click.option("--fold", metavar="ADAPTER", help="Add the delta of an adapter of MODEL to its weights.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be done, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert_base(
    base: str,
    output: Path,
    dtype: str | None,
    max_shard_size: int,
    fold: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a folder that transformers and pamctl load whole.

    MODEL is a folder in Hugging Face layout of any release, an .npz of big_vision with the tokenizer.json
    beside it, a Hub name, or tiny for the embedded one.

    With --fold the weights become W + scale B A, computed in float32 and then rounded: --dtype f32 keeps
    small deltas that bf16 would round away.

    \b
    Examples:
      pamctl convert-base tiny -o tiny-bf16 --dtype bf16
      pamctl convert-base tiny -o tiny-f32 --dry-run
      pamctl convert-base tiny -o tiny-merged --fold merged
    """
    from pamctl.adapters import open_adapter
    from pamctl.cli.output import print_json, print_result, say
    from pamctl.models.base_export import export_base, plan_base_export, refuse_taken
    from pamctl.models.checkpoint import open_checkpoint

    refuse_taken(output, force=force)
    checkpoint = open_checkpoint(base)
    adapter = None if fold is None else open_adapter(fold)
    for note in (*checkpoint.notes, *(adapter.notes if adapter else ())):
        say(note)
    export = plan_base_export(checkpoint, dtype, max_shard_size, adapter)
    say(
        f"{checkpoint.name}: {export.tensors} tensors, {', '.join(export.dtypes)}, {export.bytes:,} bytes in "
        + ", ".join(export.files)
        + (f", with {adapter.name} folded in" if adapter else "")
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
            "folded": adapter.fingerprint if adapter else None,
        }
        print_json("convert-base", {"output": None if dry_run else str(output), **facts})
    elif not dry_run:
        print_result(output)
