"""`pamctl merge`: several adapters into one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pamctl.cli.adapter_options import allow_pickle_option, writing_options
from pamctl.cli.merge_methods import explain_option, list_option, print_explanation, print_methods
from pamctl.cli.merge_options import asked_for, blamed_on, overridden, recipe_options
from pamctl.cli.push import push_option
from pamctl.cli.sizes import Size

if TYPE_CHECKING:
    from pamctl.merging import MergePlan
    from pamctl.merging.execute import Report


@click.command()
@click.argument("adapters", nargs=-1, metavar="ADAPTER ADAPTER...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The folder to write.")
@recipe_options
@click.option(
    "--allow-base-mismatch", is_flag=True, help="Merge adapters although their bases have different names."
)
@click.option(
    "--max-memory",
    type=Size(),
    default="512M",
    show_default=True,
    help="For the numbers at work at a time, beside the program itself.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu", "tpu"]),
    default="auto",
    show_default=True,
    help="Where dense deltas are worked on; auto: an accelerator if there is one.",
)
@writing_options
@allow_pickle_option
@push_option
@list_option
@explain_option
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be done, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def merge(
    adapters: tuple[str, ...],
    output: Path | None,
    recipe_file: Path | None,
    from_lock: Path | None,
    list_methods: bool,
    explain: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge adapters of one base model into one adapter, without loading the base.

    Merging factors is right for adapters that share their start, as a task adapter trained from the global
    one; merging deltas is exact for any. --space auto takes factors where the method's result is about the
    same: where a shared start is recorded or the cross-term error is at most 1 %. Else it takes deltas.

    \b
    Examples:
      pamctl merge first second -o merged
      pamctl merge first second -o merged --weights 0.7,0.3 --space factor --force
      pamctl merge first second -o sparse --method ties --density 0.5 --rank 8
      pamctl merge first second -o kept --space delta --energy 0.99 --dry-run
      pamctl merge --from-lock sparse/pamctl.json -o again
      pamctl merge --explain ties
    """
    from pamctl.cli.blas import use_one_thread

    use_one_thread()
    from pamctl.cli.heap import keep_freed_memory
    from pamctl.cli.output import print_json
    from pamctl.refusal import Refusal

    if list_methods:
        return print_methods(as_json=as_json)
    if explain is not None:
        return print_explanation(explain, as_json=as_json)
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    keep_freed_memory(options["max_memory"])
    try:
        _merge(adapters, output, recipe_file, from_lock, dry_run=dry_run, as_json=as_json, **options)
    except Refusal as refusal:
        if dry_run and as_json:
            refused = {"what": refusal.what, "way_on": refusal.way_on}
            print_json("merge", {"output": None, "refusals": [refused]})
        raise


def _merge(
    adapters: tuple[str, ...],
    output: Path,
    recipe_file: Path | None,
    from_lock: Path | None,
    *,
    allow_base_mismatch: bool,
    max_memory: int,
    device: Any,
    format_: str,
    dtype: str | None,
    compact: bool,
    spelling: str,
    allow_pickle: bool,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    from pamctl.adapters.formats import STREAMED, refuse_taken, refuse_unwritable
    from pamctl.cli.adapter_options import chosen_output, opened, size_of, write_out
    from pamctl.cli.output import print_json, print_result, say, warn
    from pamctl.merging import Recipe, execute, plan_merge
    from pamctl.merging.lock import locked_inputs, read_lock
    from pamctl.merging.recipe import FILE_NAME, RecipeFile, read_recipe, recipe_text, refuse_bad_options

    asked = asked_for(recipe_options)
    if from_lock is not None and (asked or recipe_file):
        raise click.UsageError("--from-lock decides how to merge: leave the recipe and its options out.")
    refuse_taken(output, force=force)
    lock = read_lock(from_lock) if from_lock else None
    file = lock.recipe if lock else read_recipe(recipe_file) if recipe_file else RecipeFile(Recipe())
    references = adapters or file.adapters
    if not references and lock is None:
        raise click.UsageError("Missing argument 'ADAPTER ADAPTER...'.")
    recipe = overridden(file.recipe, asked)
    with blamed_on(None if asked else recipe_file):
        refuse_bad_options(recipe)
    with blamed_on(recipe_file):
        written = chosen_output(
            file.output, {"format": format_, "dtype": dtype, "compact": compact, "spelling": spelling}
        )
    inputs = [opened(reference, allow_pickle) for reference in references]
    if lock:
        inputs = locked_inputs(lock, inputs, allow_pickle=allow_pickle)
    with blamed_on(None if asked else recipe_file):
        plan = plan_merge(
            inputs,
            recipe,
            allow_base_mismatch=allow_base_mismatch,
            max_memory=max_memory,
            device=lock.device if lock and device == "auto" else device,
            streams=written.format in STREAMED,
        )
    merged = execute(plan, written.told, dry_run=dry_run)
    refuse_unwritable(merged.adapter, output, written.format, written.options)
    size = size_of(merged.adapter, written.options)
    for line in _lines(plan, size, written.format):
        say(line)
    for note in plan.notes:
        warn(note)
    outcome = write_out(
        merged.adapter,
        lambda: merged.report.retained_energy,
        output,
        written.format,
        written.options,
        push_to=push_to,
        force=force,
        dry_run=dry_run,
        beside={FILE_NAME: recipe_text(plan.recipe, written.told)},
        expected=lock.fingerprint if lock else None,
    )
    report = _report(plan, merged.report)
    if not dry_run:
        say(_told(report))
    if vanished := sorted(merged.report.vanished):
        warn(
            f"{len(vanished)} modules came out as 0, such as {vanished[0]}: "
            f"see pamctl merge --explain {plan.method}"
        )
    if as_json:
        print_json("merge", {**plan.to_json(), **outcome, **size, **report, "refusals": []})
    elif not dry_run:
        print_result(output)


def _report(plan: "MergePlan", report: "Report") -> dict[str, Any]:
    """What only the merge itself could tell, and the cross-term error where the plan measured it."""
    from pamctl.merging.plan import percent

    relation = report.relation
    error = plan.cross_term_error if plan.relation or not report.relations else relation.cross_term_error
    conflicts = relation.conflict_percent
    return {
        "cross_term_error_percent": percent(error),
        "sign_conflict_percent": None if conflicts is None else round(conflicts, 4),
    }


def _told(report: dict[str, Any]) -> str:
    def shown(percentage: float | None, otherwise: str) -> str:
        return otherwise if percentage is None else f"{percentage:.4g} %"

    error = shown(report["cross_term_error_percent"], "not defined")
    conflicts = shown(report["sign_conflict_percent"], "none")
    return (
        f"cross-term error {error}: what averaging factors gets wrong; "
        f"signs conflict in {conflicts} of the weights"
    )


def _lines(plan: "MergePlan", size: dict[str, Any], format: str) -> list[str]:
    from pamctl.merging.memory import size as shown

    weights = ", ".join(f"{weight:.4g}" for weight in plan.weights)
    lines = [
        f"{plan.method} of {len(plan.adapters)} adapters, weights {weights}: {size['modules']} modules, "
        f"rank {size['rank']}, {size['dtype']}, {size['bytes']:,} bytes as {format}, "
        f"from {plan.input_bytes:,}; about {shown(plan.peak_bytes)} of memory"
    ]
    for group, reason in zip(plan.groups, plan.reasons, strict=True):
        which = f"{group.method.name} for {len(group.modules)} modules: " if len(plan.groups) > 1 else ""
        lines.append(f"{which}{group.space} space: {reason}")
    return lines + [
        f"uses {part['used']} of {part['modules']} modules of {part['name']}, "
        f"{part['covered_percent']:.4g} % of them in every adapter"
        for part in plan.coverage
    ]
