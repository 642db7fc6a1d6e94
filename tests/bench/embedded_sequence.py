"""The embedded sequence over orders and seeds: `python tests/bench/embedded_sequence.py -o results.jsonl`.

Fine-tuning, averaging, PAM (one threshold over all weights, Algorithm 1 to the letter) and PAM with a
threshold for each tensor, all from the same first task. Run again, it goes on with the (order, seed) pairs
that are missing. Prints mean and standard deviation over all pairs, and every paired difference against
averaging.
"""

import time
from dataclasses import replace
from pathlib import Path

import click

from pamctl.compile_cache import keep_compiled_programs
from pamctl.evaluation.matrix import matrices_of
from pamctl.evaluation.metrics import METRICS
from pamctl.evaluation.results import Result, append_results, read_results
from pamctl.evaluation.summary import Comparison, Spread, comparisons_of
from pamctl.models.base import load_base
from pamctl.sequence import Stage, Workbench, learn
from pamctl.tasks.embedded import ORDERS, embedded_tasks
from pamctl.training.configuration import Settings

SYSTEMS: tuple[tuple[str | None, Settings], ...] = (
    (None, {"method": "finetune"}),
    (None, {"method": "average"}),
    (None, {"method": "pam"}),
    ("scope tensor", {"method": "pam", "scope": "tensor"}),
)


def sequences(bench: Workbench, order: int, seed: int) -> list[Result]:
    """Every system on one order and seed: the scores of each state, with zero-shot and the first task."""
    names = ORDERS[order]
    results = [bench.evaluated(None, name) for name in names]
    first = bench.trained(names[0], None, {"seed": seed})
    results += [bench.evaluated(first, name) for name in names[:2]]
    for run, settings in SYSTEMS:

        def scored(stage: Stage, run: str | None = run) -> None:
            results.extend(
                replace(bench.evaluated(stage.adapter, task), run=run) for task in stage.evaluated_on
            )

        learn(bench, names, first, {**settings, "seed": seed}, scored)
    return [replace(result, order=f"order {order + 1}", seed=seed) for result in results]


def told(spread: Spread | None) -> str:
    """Mean and spread as one cell."""
    return "n/a" if spread is None else f"{spread.mean:.1f} ± {spread.std:.1f}"


def tables(comparison: Comparison) -> str:
    """The paper's columns, and paired differences against averaging, as Markdown."""
    count = len(comparison.of("average"))
    lines = [f"| n = {count}, ddof 0 | {' | '.join(METRICS)} |", f"|---|{'---|' * len(METRICS)}"]
    for system in comparison.systems:
        cells = (told(comparison.spread(system, metric)) for metric in METRICS)
        lines.append(f"| {system} | {' | '.join(cells)} |")
    lines += ["", "| paired difference against average | mean ± std | ahead | each |", "|---|---|---|---|"]
    for pair in comparison.pairs():
        if "average" in (pair.first, pair.second):
            sign = 1 if pair.first == "average" else -1
            other = pair.second if sign == 1 else pair.first
            differences = [sign * difference for difference in pair.differences.values()]
            mean = sign * pair.spread.mean
            ahead = sum(difference > 0 for difference in differences)
            each = " ".join(f"{difference:+.1f}" for difference in differences)
            cells = f"{mean:+.1f} ± {pair.spread.std:.1f} | {ahead} of {len(differences)} | {each}"
            lines.append(f"| {other}, {pair.metric} | {cells} |")
    return "\n".join(lines)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Results to add to.")
@click.option("--seeds", default=3, show_default=True, help="Seeds an order.")
def main(output: Path, seeds: int) -> None:
    """Run what is missing and print the tables."""
    keep_compiled_programs()
    known = read_results([output])[0] if output.exists() else []
    done = {(result.order, result.seed) for result in known}
    bench = Workbench(load_base(), embedded_tasks())
    for seed in range(seeds):
        for order in range(len(ORDERS)):
            if (f"order {order + 1}", seed) in done:
                continue
            started = time.monotonic()
            append_results(output, sequences(bench, order, seed))
            print(f"order {order + 1}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    matrices, notes = matrices_of(read_results([output])[0])
    print("\n".join(notes))
    for comparison in comparisons_of(matrices):
        print(tables(comparison))


if __name__ == "__main__":
    main()
