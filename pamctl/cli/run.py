"""`pamctl run`: a whole sequence of tasks, in several orders, with several seeds, by several methods."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from pamctl.sequences import shipped

if TYPE_CHECKING:
    from pamctl.sequences.estimate import RunPlan
    from pamctl.sequences.grid import Cell, Unit
    from pamctl.sequences.run import Ran

KEYS = ("order", "seed", "method")


class _Only(click.ParamType):
    name = "KEY=VALUE,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, list[str]]:
        key, _, values = value.partition("=")
        if key not in KEYS or not values:
            self.fail(f"{value!r} is not {', '.join(KEYS[:-1])} or {KEYS[-1]} and values", param, ctx)
        return key, values.split(",")


@click.command(epilog=f"Shipped sequences: {', '.join(shipped.names())}.")
@click.argument("sequence")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--data", metavar="DIR", help="Where paths of tasks start. [default: the file's]")
@click.option("--base", metavar="MODEL", help="Base model, in place of the file's.")
@click.option(
    "--only", type=_Only(), multiple=True, help="Only these of order, seed or method; a key each, repeatable."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at work.")
@click.option("--dry-run", is_flag=True, help="Check every input, show steps, time and disk, write nothing.")
@click.option("--print-commands", is_flag=True, help="Print the same as a shell script, do nothing else.")
@click.option("--emit", type=click.Choice(["slurm", "skypilot"]), help="Write job files, do nothing else.")
@click.option("--force", is_flag=True, help="Start over in the folder of a run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run(
    sequence: str,
    output: Path,
    data: str | None,
    base: str | None,
    only: tuple[tuple[str, list[str]], ...],
    jobs: int,
    dry_run: bool,
    print_commands: bool,
    emit: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Learn the tasks of SEQUENCE by every method, order and seed of it: each trained, merged and scored.

    SEQUENCE is a .toml file or the name of a shipped one (below). OUTPUT holds adapters as
    ORDER/seed-N/METHOD/T-TASK, results.jsonl, diagnostics.jsonl and report/. Stopped or killed, the same
    command goes on where it was; on SIGTERM it saves a checkpoint and exits with 75.

    \b
    Examples:
      pamctl run embedded -o runs --only method=finetune,average,pam --only order=order-1 --only seed=0
      pamctl run embedded -o runs --dry-run
      pamctl run coin-1 -o runs --data /data/coin --print-commands > coin-1.sh
      pamctl run coin-1 -o /shared/runs --data /shared/coin --emit slurm
    """
    from pamctl.cli.output import print_json, print_result, say

    if sum((dry_run, print_commands, emit is not None)) > 1:
        raise click.UsageError("--dry-run, --print-commands and --emit exclude each other.")
    chosen: dict[str, list[str]] = {}
    for key, values in only:
        chosen.setdefault(key, []).extend(values)
    inputs: dict[str, Any] = {"data": data, "base": base, "only": chosen}
    if dry_run:
        _show_plan(sequence, output, as_json=as_json, **inputs)
    elif print_commands:
        from pamctl.sequences.run import script_of

        print_result(script_of(sequence, output, **inputs).rstrip("\n"))
    elif emit:
        from pamctl.sequences.run import emit_jobs

        cluster = cast("Literal['slurm', 'skypilot']", emit)
        submit = emit_jobs(sequence, output, cluster, force=force, **inputs)
        say(f"Submit them with: bash {submit}")
        if as_json:
            print_json("run-jobs", {"output": str(output), "submit": str(submit)})
        else:
            print_result(submit)
    else:
        _run(sequence, output, jobs=jobs, force=force, as_json=as_json, **inputs)


def _run(sequence: str, output: Path, *, as_json: bool, **how: Any) -> None:
    from pamctl.cli.output import Progress, print_json, print_result, say, warn
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.refusal import Refusal
    from pamctl.sequences.run import run_sequence

    keep_compiled_programs()
    with Progress("run", 0) as progress:

        def on_work(done: int, total: int, what: str) -> None:
            progress.total = total
            progress.update(done, what)

        def on_failure(unit: "Unit", refusal: Refusal) -> None:
            warn(f"{unit.name} failed: {refusal.what}; {refusal.way_on}")

        ran = run_sequence(
            sequence, output, on_work=on_work, report=say, on_failure=on_failure, warn=warn, **how
        )
    if ran.report is not None:
        from pamctl.cli.report_tables import print_report

        for note in ran.report.notes:
            warn(note)
        print_report(ran.report)
    if as_json:
        print_json("run", _record(ran))
    if ran.failures:
        raise Refusal(
            f"{len(ran.failures)} of the run's parts failed: {', '.join(ran.failures)}",
            "the reasons are told above; run again to do what is left",
        )
    if not as_json:
        print_result(output)


def _record(ran: "Ran") -> dict[str, Any]:
    from pamctl.sequences.folder import REPORT
    from pamctl.sequences.steps import DIAGNOSTICS, RESULTS

    return {
        "output": str(ran.out),
        "cells": [_cell(ran, cell) for cell in ran.cells],
        "results": str(ran.out / RESULTS),
        "diagnostics": str(ran.out / DIAGNOSTICS),
        "report": str(ran.out / REPORT),
    }


def _cell(ran: "Ran", cell: "Cell") -> dict[str, Any]:
    refusal = ran.failures.get(cell.folder)
    return {
        "order": cell.order,
        "seed": cell.seed,
        "method": cell.system.method,
        "run": cell.system.run,
        "folder": str(ran.out / cell.folder),
        "failed": None if refusal is None else refusal.what,
    }


def _show_plan(sequence: str, output: Path, *, as_json: bool, **inputs: Any) -> None:
    from rich.table import Table

    from pamctl.cli.output import print_json, print_table, say
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.sequences.estimate import plan_run
    from pamctl.sequences.run import grid_of

    keep_compiled_programs()
    plan = plan_run(grid_of(sequence, output, **inputs))
    table = Table("part", "trainings", "steps", "adapters", box=None, pad_edge=False)
    for unit in plan.units:
        table.add_row(unit.name, str(unit.trainings), f"{unit.steps:,}", str(unit.adapters))
    print_table(table)
    say(_totals(plan))
    if as_json:
        print_json("run-plan", {"output": str(output), **plan.to_json()})


def _totals(plan: "RunPlan") -> str:
    hours, minutes = divmod(round(plan.seconds / 60), 60)
    return (
        f"{plan.steps:,} steps; an estimate from {plan.seconds_a_step:.3g} s for a step of plain fine-tuning "
        f"on the first task: {hours} h {minutes:02} min of training by one process, evaluation aside; "
        f"{plan.disk_bytes / 1e6:,.1f} MB of adapters"
    )
