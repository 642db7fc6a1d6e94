"""`pamctl demo`: the main job on embedded data, in minutes, without a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from pamctl.demo import Demo
    from pamctl.evaluation.matrix import AccuracyMatrix


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("pamctl-demo"),
    show_default=True,
    help="Folder for adapters, results and figures.",
)
@click.option("--tasks", type=click.IntRange(min=2), metavar="N", help="Only the first N tasks.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Optimiser steps a task.")
@click.option("--order", type=int, default=1, show_default=True, help="Order of the tasks: 1, 2 or 3.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of fresh LoRA and the examples' order.")
@click.option("--base", metavar="MODEL", help="Base model: a folder or hf://org/name. [default: embedded]")
@click.option("--force", is_flag=True, help="Start over in the folder of an earlier demo.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every number.")
def demo(
    output: Path,
    tasks: int | None,
    steps: int | None,
    order: int,
    seed: int,
    base: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Learn six small tasks one after another by fine-tuning, averaging and PAM, and compare what is left.

    Everything needed comes with the package. The three methods start from one first task; after each task the
    adapter is scored on all tasks so far. OUTPUT is laid out as by `pamctl run`. Stopped or killed, the same
    command goes on where it was; on SIGTERM it saves a checkpoint and exits with 75.

    \b
    Examples:
      pamctl demo
      pamctl demo --tasks 2 --steps 20 -o quick
    """
    from pamctl.cli.output import Progress, print_json, print_result, print_table, say, warn
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.demo import COMMANDS, run_demo
    from pamctl.evaluation.metrics_json import metrics_json
    from pamctl.sequences.folder import REPORT
    from pamctl.sequences.steps import RESULTS

    keep_compiled_programs()
    with Progress("demo", 0) as progress:

        def on_work(done: int, total: int, what: str) -> None:
            progress.total = total
            progress.update(done, what)

        found = run_demo(
            output,
            tasks=tasks,
            steps=steps,
            order=order,
            seed=seed,
            force=force,
            base=base,
            on_work=on_work,
            report=say,
            warn=warn,
        )
    for note in found.report.notes:
        warn(note)
    for matrix in found.report.comparisons[0].matrices:
        print_table(_matrix(matrix))
    print_table(_summary(found))
    say(f"Scores: {output / RESULTS}; figures and tables: {output / REPORT}")
    say(f"The same by single commands: sh {output / COMMANDS}")
    if as_json:
        record: dict[str, Any] = {"output": str(output), "differ_percent": found.differ_percent}
        print_json("demo", {**record, **metrics_json(found.report)})
    else:
        print_result(output)


def _matrix(matrix: "AccuracyMatrix") -> "Table":
    from rich.table import Table

    names = [name.removeprefix("tiny-") for name in matrix.tasks]
    table = Table("score (%)", title=f"\n{matrix.system}", title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    table.add_row("zero-shot", *(_score(score) for score in matrix.zero_shot))
    for name, scores in zip(names, matrix.after, strict=True):
        table.add_row(f"after {name}", *(_score(score) for score in scores))
    return table


def _summary(found: "Demo") -> "Table":
    from rich.table import Table

    from pamctl.evaluation.tables import summary_table

    header, rows = summary_table(found.report.comparisons[0])
    table = Table(title="\nsummary", title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate((*header[:-1], "signs differ (%)")):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        differ = found.differ_percent.get(row[0])
        table.add_row(*row[:-1], "-" if differ is None else f"{differ:.1f}")
    return table


def _score(score: float) -> str:
    return "" if score != score else f"{score:.1f}"
