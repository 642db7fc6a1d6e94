"""`pamctl report`: tables and figures from results."""

import click


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder to write.")
@click.option("--split", default="test", show_default=True, help="Compare results of this split.")
@click.option("--against", help="Differences from this method. [default: average if there, else all pairs]")
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every number.")
def report(
    results: tuple[str, ...], output: str, split: str, against: str | None, force: bool, as_json: bool
) -> None:
    """Turn RESULTS, the files that `pamctl eval --results` appends to, into tables and figures.

    Writes report.md, metrics.json, matrix.csv, and as PNG and SVG: forgetting over time, accuracy by order,
    the accuracy matrices. Results are put into sequences by the adapters' lineage; for each task the merged
    adapter counts if there is one, else the trained one. What is missing is n/a, with the command to fill it;
    what does not exist for a method, such as forgetting where tasks are learned apart, is -.

    stdout carries the folder's path, or with --json the numbers; a table goes to stderr.

    \b
    Example:
      pamctl eval --task tiny-gqa --task tiny-vqav2 --results results.jsonl
      pamctl eval merged --task tiny-gqa --task tiny-vqav2 --results results.jsonl
      pamctl report results.jsonl -o report
      pamctl report results.jsonl -o report --against average --force
    """
    from pathlib import Path

    from rich.table import Table

    from pamctl.cli.output import print_json, print_result, print_table, warn
    from pamctl.evaluation.metrics_json import metrics_json
    from pamctl.evaluation.report import write_report
    from pamctl.evaluation.tables import summary_table

    files = [Path(file) for file in results]
    written = write_report(files, Path(output), split=split, against=against, force=force)
    for note in written.notes:
        warn(note)
    for comparison in written.comparisons:
        header, rows = summary_table(comparison)
        table = Table(
            *header, title=", ".join(comparison.tasks), title_justify="left", box=None, pad_edge=False
        )
        table.columns[0].no_wrap = True
        table.columns[0].min_width = max(len(row[0]) for row in rows)
        for row in rows:
            table.add_row(*row)
        print_table(table)
    if as_json:
        print_json("report", {"path": output, **metrics_json(written)})
    else:
        print_result(output)
