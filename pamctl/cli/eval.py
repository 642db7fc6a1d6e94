"""`pamctl eval`: score an adapter, or the base, on tasks."""

from typing import Any

import click

from pamctl.cli.base_options import held_options
from pamctl.cli.distributed_options import distributed_options, join_others


@click.command("eval")
@click.argument("adapter", required=False)
@click.option(
    "--task", "tasks", multiple=True, required=True, help="Embedded name, .jsonl or folder; repeatable."
)
@click.option("--base", help="Base model; default: the adapter's own, else the embedded one.")
@click.option("--results", type=click.Path(dir_okay=False), help="JSON Lines file to append the scores to.")
@click.option(
    "--predictions", type=click.Path(dir_okay=False), help="JSON Lines file to write every answer to."
)
@click.option("--split", default="test", show_default=True, help="Split to score.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N examples of each task.")
@click.option(
    "--batch-size", default=64, show_default=True, type=click.IntRange(min=1), help="Examples at once."
)
@held_options
@distributed_options
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest answer; default: the task's.")
@click.option("--stage", type=click.Choice(["trained", "merged"]), help="For an adapter that does not tell.")
@click.option("--order", help="Label that keeps apart orders of the tasks, such as order-1.")
@click.option("--run", help="Label that keeps apart runs of one method, such as p=30 and p=50.")
@click.option("--force", is_flag=True, help="Replace the predictions file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the results.")
def eval_(
    adapter: str | None,
    tasks: tuple[str, ...],
    base: str | None,
    results: str | None,
    predictions: str | None,
    split: str,
    limit: int | None,
    batch_size: int,
    max_new_tokens: int | None,
    stage: str | None,
    order: str | None,
    run: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score ADAPTER on tasks by greedy decoding; without ADAPTER, the base model zero-shot.

    stdout carries one JSON object with --json, else the path of the results file with --results, else the
    table of scores. Every score is in percent. Several processes may append to one results file at once.

    \b
    Example:
      pamctl eval --task tiny-gqa --task tiny-vqav2
      pamctl eval merged --task tiny-gqa --results results.jsonl --predictions answers.jsonl
      pamctl eval merged --task my-task.jsonl --limit 100 --json
    """
    from pathlib import Path
    from typing import Literal, cast

    from rich.table import Table

    from pamctl.cli.output import Progress, print_json, print_result, print_table, warn
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.evaluation.score import score_adapter

    keep_compiled_programs()
    join_others(options)
    with Progress("eval", 0, unit="example") as progress:

        def on_examples(done: int, total: int, task: str) -> None:
            progress.total = total
            progress.update(done, task)

        scored = score_adapter(
            adapter,
            tasks,
            base=base,
            split=split,
            limit=limit,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            stage=cast("Literal['trained', 'merged'] | None", stage),
            order=order,
            run=run,
            results=Path(results) if results else None,
            predictions=Path(predictions) if predictions else None,
            force=force,
            warn=warn,
            on_examples=on_examples,
            **options,
        )
    if as_json:
        print_json("eval", {"results": [result.to_json() for result in scored]})
    elif results:
        print_result(results)
    else:
        table = Table("task", "metric", "score (%)", "n", box=None, pad_edge=False)
        for result in scored:
            table.add_row(result.task, result.metric, f"{result.score:.2f}", str(result.n))
        print_table(table, to_stdout=True)
