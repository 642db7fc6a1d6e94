"""`pamctl align`: compare a task adapter with the global one, and put back what contradicts it."""

from pathlib import Path
from typing import Any

import click

from pamctl.cli.adapter_options import allow_pickle_option
from pamctl.cli.push import push_option, pushed_to, say_where_it_would_be_pushed


@click.command()
@click.argument("adapter")
@click.option("--to", "reference", required=True, metavar="GLOBAL", help="The global adapter.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the realigned adapter here; else report only.",
)
@click.option(
    "--top-p",
    type=float,
    default=50,
    show_default=True,
    help="Percent of the global weights that are important.",
)
@click.option(
    "--scope",
    type=click.Choice(["tensor", "module", "factor", "global"]),
    default="global",
    show_default=True,
    help="Which weights are ranked together.",
)
@click.option(
    "--reinit",
    type=click.Choice(["global", "zero"]),
    default="global",
    show_default=True,
    help="What a weight in conflict becomes: the global weight, or 0.",
)
@click.option(
    "--fail-above", type=float, metavar="PERCENT", help="Fail if more of the important weights conflict."
)
@allow_pickle_option
@push_option
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Check and report, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def align(
    adapter: str,
    reference: str,
    output: Path | None,
    top_p: float,
    scope: Any,
    reinit: Any,
    fail_above: float | None,
    allow_pickle: bool,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put back the weights of ADAPTER whose sign contradicts an important weight of GLOBAL.

    Without -o it only reports. With --fail-above nothing is written where the limit is exceeded.

    \b
    Examples:
      pamctl align second --to first
      pamctl align second --to first -o aligned
      pamctl align second --to first --top-p 30 --scope tensor --fail-above 60 --json
    """
    from pamctl.adapters import write_adapter
    from pamctl.adapters.formats import refuse_taken
    from pamctl.alignment import align as align_adapters
    from pamctl.cli.adapter_options import opened
    from pamctl.cli.output import print_json, print_result, say
    from pamctl.refusal import Refusal, UsageRefusal

    if fail_above is not None and not 0 <= fail_above <= 100:
        raise UsageRefusal(f"--fail-above is {fail_above:g}", "give a percentage from 0 to 100")
    if push_to and not output:
        raise UsageRefusal("--push-to without an output", "add -o DIR: what is written there is pushed")
    if output:
        refuse_taken(output, force=force)
    aligned, report = align_adapters(
        opened(adapter, allow_pickle), opened(reference, allow_pickle), top_p, scope, reinit
    )
    conflicts = report.overall.conflict_percent
    exceeded = fail_above is not None and conflicts > fail_above
    written = output if output and not dry_run and not exceeded else None
    pushed = None
    if written:
        write_adapter(aligned, written, force=force)
        pushed = pushed_to(push_to, written)
    elif not exceeded:
        say_where_it_would_be_pushed(push_to)
    lines = "\n".join(_lines(report))
    if as_json:
        settings = {"top_p": top_p, "scope": scope, "reinit": reinit}
        outcome = {"output": str(written) if written else None, "pushed": pushed}
        print_json("align", {**outcome, **settings, **report.to_json()})
    elif output:
        say(lines)
    else:
        print_result(lines)
    if written and not as_json:
        print_result(written)
    if exceeded:
        raise Refusal(
            f"{conflicts:.2f} % of the important weights conflict, more than --fail-above {fail_above:g}",
            "train with --align-every, or raise the limit",
        )


def _lines(report: Any) -> list[str]:
    lines = [
        f"{'':<6}{'weights':>14}{'sign differs':>14}{'important':>14}{'in conflict':>14}{'of important':>14}"
    ]
    for name, counts in (("A", report.factors["a"]), ("B", report.factors["b"]), ("all", report.overall)):
        lines.append(
            f"{name:<6}{counts.weights:>14,}{counts.differ_percent:>12.2f} %{counts.important:>14,}"
            f"{counts.conflicts:>14,}{counts.conflict_percent:>12.2f} %"
        )
    return lines
