"""`pamctl merge`: several adapters into one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pamctl.cli.adapter_options import allow_pickle_option, writing_options
from pamctl.cli.push import push_option

if TYPE_CHECKING:
    from pamctl.merging import MergePlan


class _Weights(click.ParamType):
    name = "W,W,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(float(weight) for weight in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, as 0.7,0.3", param, ctx)


@click.command()
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER ADAPTER...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--method", type=click.Choice(["average"]), default="average", show_default=True, help="How to merge."
)
@click.option(
    "--weights", type=_Weights(), help="One weight an adapter, divided by their sum. [default: equal]"
)
@click.option(
    "--space",
    type=click.Choice(["auto", "factor", "delta"]),
    default="auto",
    show_default=True,
    help="Average A and B apart, or their product.",
)
@click.option(
    "--rank", type=click.IntRange(min=1), help="Truncate an averaged delta to this rank. [default: exact]"
)
@click.option(
    "--full-modules",
    type=click.Choice(["refuse", "first", "mean"]),
    default="refuse",
    show_default=True,
    help="What full tensors (modules_to_save, embeddings, biases) become where they differ.",
)
@click.option(
    "--allow-base-mismatch", is_flag=True, help="Merge adapters although their bases have different names."
)
@writing_options
@allow_pickle_option
@push_option
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be done, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def merge(
    adapters: tuple[str, ...],
    output: Path,
    method: str,
    weights: tuple[float, ...] | None,
    space: Any,
    rank: int | None,
    full_modules: Any,
    allow_base_mismatch: bool,
    format_: str,
    dtype: str | None,
    compact: bool,
    spelling: str,
    allow_pickle: bool,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Merge adapters of one base model into one adapter, without loading the base.

    Averaging factors is right for adapters that share their start, as a task adapter trained from the global
    one; averaging deltas is exact for any, at the sum of their ranks unless --rank is given. --space auto
    takes factors where a shared start is recorded or the cross-term error is at most 1 %, else deltas.

    \b
    Examples:
      pamctl merge first second -o merged
      pamctl merge first second -o merged --weights 0.7,0.3 --space factor --force
      pamctl merge first second -o compressed --space delta --rank 8 --dry-run
    """
    from pamctl.cli.blas import use_one_thread

    use_one_thread()
    from pamctl.adapters.formats import refuse_taken, refuse_unwritable
    from pamctl.cli.adapter_options import opened, size_of, write_options, write_out
    from pamctl.cli.output import print_json, print_result, say, warn
    from pamctl.merging import execute, plan_merge

    refuse_taken(output, force=force)
    opened_adapters = [opened(adapter, allow_pickle) for adapter in adapters]
    plan = plan_merge(
        opened_adapters,
        method,
        weights,
        space,
        rank,
        full_modules,
        allow_base_mismatch=allow_base_mismatch,
    )
    merged, options = execute(plan), write_options(dtype, compact, spelling)
    refuse_unwritable(merged.adapter, output, format_, options)
    size = size_of(merged.adapter, options)
    for line in _lines(plan, size):
        say(line)
    for note in plan.notes:
        warn(note)
    outcome = write_out(
        merged.adapter,
        merged.truncation,
        output,
        format_,
        options,
        push_to=push_to,
        force=force,
        dry_run=dry_run,
    )
    if as_json:
        print_json("merge", {**outcome, **plan.to_json(), **size})
    elif not dry_run:
        print_result(output)


def _lines(plan: "MergePlan", size: dict[str, Any]) -> list[str]:
    weights = ", ".join(f"{weight:.4g}" for weight in plan.weights)
    error = "not defined" if plan.cross_term_error is None else f"{100 * plan.cross_term_error:.4f} %"
    return [
        f"{plan.method} of {len(plan.adapters)} adapters, weights {weights}: {size['modules']} modules, "
        f"rank {size['rank']}, {size['dtype']}, {size['bytes']:,} bytes",
        f"{plan.space} space: {plan.reason}; cross-term error {error}",
        *(
            f"uses {part['used']} of {part['modules']} modules of {part['name']}, "
            f"{part['covered_percent']:.4g} % of them in every adapter"
            for part in plan.coverage
        ),
    ]
