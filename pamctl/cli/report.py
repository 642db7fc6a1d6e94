"""`pamctl report`: tables and figures from results."""

import click


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder to write.")
@click.option("--split", default="test", show_default=True, help="Compare results of this split.")
@click.option("--against", help="Differences from this method. [default: average if there, else all pairs]")
@click.option(
    "--fwt",
    type=click.Choice(["lopez-paz", "paper", "all-unseen"]),
    default="lopez-paz",
    show_default=True,
    help="Which FWT the tables show.",
)
@click.option(
    "--baseline", multiple=True, type=click.Path(), help="Another run to compare this one with; repeatable."
)
@click.option(
    "--task", "tasks", multiple=True, help="Where the pictures of a task are, for index.html; repeatable."
)
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every number.")
def report(
    results: tuple[str, ...],
    output: str,
    split: str,
    against: str | None,
    fwt: str,
    baseline: tuple[str, ...],
    tasks: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Turn RESULTS into tables, figures and a page to send on.

    RESULTS are files that `pamctl eval` wrote with --results or --predictions, folders that `pamctl run`
    wrote, a diagnostics.jsonl, and metrics.jsonl of trained adapters, in any order: a line says what it is.

    Writes index.html, which needs nothing else; report.md, metrics.json, matrix.csv; and as PNG and SVG
    forgetting over time, accuracy by order, stability against plasticity, the accuracy matrices and, where
    RESULTS tell them, conflicts by layer and training curves. Results are put into sequences by the adapters'
    lineage; for each task the merged adapter counts if there is one, else the trained one; of two results of
    one cell the later. What is missing is n/a, with the command to fill it; what does not exist for a method,
    such as forgetting where tasks are learned apart, is -.

    FWT is `lopez-paz`, the score one task before learning minus zero-shot over tasks 2 to T; `paper`, the
    PAM paper's Eq. 5 to the letter, which leaves out the last task; or `all-unseen`, over every task not yet
    learned. metrics.json has all three.

    stdout carries the folder's path, or with --json the numbers; tables go to stderr.

    \b
    Example:
      pamctl eval --task tiny-gqa --task tiny-vqav2 --results results.jsonl
      pamctl eval merged --task tiny-gqa --task tiny-vqav2 --results results.jsonl
      pamctl report results.jsonl -o report
      pamctl report runs -o report --baseline older-runs --against average --force
    """
    from pathlib import Path

    from pamctl.cli.output import print_json, print_result, warn
    from pamctl.cli.report_tables import print_report
    from pamctl.evaluation.metrics_json import metrics_json
    from pamctl.evaluation.report import write_report

    written = write_report(
        [Path(path) for path in results],
        Path(output),
        split=split,
        against=against,
        fwt=fwt,
        baseline=[Path(path) for path in baseline],
        tasks=tasks,
        force=force,
        warn=warn,
    )
    for note in written.notes:
        warn(note)
    print_report(written)
    if as_json:
        print_json("report", {"path": output, **metrics_json(written)})
    else:
        print_result(output)
