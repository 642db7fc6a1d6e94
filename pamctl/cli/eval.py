"""`pamctl eval`: score an adapter, or the base, on tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pamctl.cli.base_options import held_options
from pamctl.cli.distributed_options import distributed_options, join_others

if TYPE_CHECKING:
    from rich.table import Table

    from pamctl.evaluation.results import Result

OF_SCORES = ("tasks", "split", "limit", "stage", "order", "run", "results", "predictions", "force")
"""The options that make a difference without a model too."""


@click.command("eval")
@click.argument("adapter", required=False)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    help="Embedded name, .jsonl, .toml or folder; repeatable.",
)
@click.option("--base", help="Base model; default: the adapter's own, else the embedded one.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON Lines file to append the scores to; what it holds already is not evaluated again.",
)
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON Lines file to write every answer to.",
)
@click.option(
    "--from-predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Score the answers that this file of --predictions holds, without a model.",
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
@click.option(
    "--force", is_flag=True, help="Evaluate what --results holds already, too; replace the predictions file."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the results.")
@click.pass_context
def eval_(
    context: click.Context,
    adapter: str | None,
    from_predictions: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score ADAPTER on tasks by greedy decoding; without ADAPTER, the base model zero-shot.

    stdout carries one JSON object with --json, else the path of the results file with --results, else the
    table of scores. Every score is in percent. Several processes may append to one results file at once. A
    score that it holds already, of the same adapter, examples, metric and labels, is taken from there.

    \b
    Example:
      pamctl eval --task tiny-gqa --task tiny-vqav2
      pamctl eval merged --task tiny-gqa --results results.jsonl --predictions answers.jsonl
      pamctl eval merged --task my-task.jsonl --limit 100 --json
      pamctl eval --from-predictions answers.jsonl --task tiny-gqa
    """
    from pamctl.cli.output import print_json, print_result, print_table, warn

    if from_predictions:
        from pamctl.evaluation.rescore import rescore

        _refuse_options_of_a_model(context)
        scored = rescore(from_predictions, warn=warn, **{name: options[name] for name in OF_SCORES})
    else:
        scored = _evaluated(adapter, options)
    results = options["results"]
    if as_json:
        print_json("eval", {"results": [result.to_json() for result in scored]})
        return
    print_table(score_table(scored), to_stdout=not results)
    if results:
        print_result(results)


def _evaluated(adapter: str | None, options: dict[str, Any]) -> "list[Result]":
    from pamctl.cli.output import Progress, say, warn
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.evaluation.score import score_adapter

    keep_compiled_programs()
    join_others(options)
    with Progress("eval", 0, unit="example") as progress:

        def on_examples(done: int, total: int, task: str) -> None:
            progress.total = total
            progress.update(done, task)

        return score_adapter(adapter, warn=warn, report=say, on_examples=on_examples, **options)


def _refuse_options_of_a_model(context: click.Context) -> None:
    from click.core import ParameterSource

    from pamctl.refusal import UsageRefusal

    apart = (*OF_SCORES, "from_predictions", "as_json")
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in apart and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            what = parameter.opts[0] if isinstance(parameter, click.Option) else "ADAPTER"
            raise UsageRefusal(
                f"--from-predictions needs no model, and {what} is given", "leave one of the two out"
            )


def score_table(scored: "Sequence[Result]") -> "Table":
    """The scores, each with those by question type beneath it; unread answers where there are some."""
    from rich.table import Table

    from pamctl.printable import printable

    unread = any(result.unread for result in scored)
    table = Table("task", "metric", box=None, pad_edge=False)
    for name in ("score (%)", "n", "unread")[: 3 if unread else 2]:
        table.add_column(name, justify="right")
    for result in scored:
        last = [str(result.unread or 0)] if unread else []
        table.add_row(printable(result.task), result.metric, f"{result.score:.2f}", str(result.n), *last)
        for name, part in (result.types or {}).items():
            table.add_row(f"  {printable(name)}", "", f"{part.score:.2f}", str(part.n))
    return table
