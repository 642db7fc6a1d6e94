"""Times every method's training and merging of a second embedded task beside fine-tuning's (--help).

python tests/bench/methods.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pamctl.compile_cache import keep_compiled_programs
from pamctl.models.base import load_base
from pamctl.sequences.workbench import Workbench
from pamctl.tasks.embedded import ORDERS, embedded_tasks
from pamctl.training.inheritance import inherited
from pamctl.training.loop import train
from pamctl.training.methods import METHODS
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import prepare

PLAIN = "finetune"


def measured(name: str, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round of training by a method, and of its merge, and this process's peak memory."""
    keep_compiled_programs()
    method, tasks = METHODS[name], embedded_tasks()
    names = ORDERS[0][:2]
    bench = Workbench(load_base(), {task: tasks[task] for task in names})
    before = inherited(None)
    if method.continues:
        first = bench.trained([names[0]], {"method": name, "steps": steps}, folder / "first")
        before = inherited(first.name)
    prepared = prepare(
        [bench.tasks[task] for task in (names if method.at_once else names[1:])],
        bench.base,
        before,
        {"method": name, "steps": steps},
    )
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        train(prepared.run, MetricsLog())
        seconds.append(time.perf_counter() - started)
    merging = 0.0
    if method.merge is not None and before.global_adapter is not None:
        trained = bench.trained(
            [names[1]],
            {"method": name, "steps": steps},
            folder / "second",
            before=before.global_adapter,
        )
        started = time.perf_counter()
        bench.merged(before.global_adapter, trained, method.merge, folder / "merged")
        merging = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[1:], "merging": merging, "peak_bytes": peak}


def in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one method in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", name, folder]
        command += ["--steps", str(arguments.steps), "--rounds", str(arguments.rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each method, with its time beside that of fine-tuning just before and just after it."""
    before = in_a_process(PLAIN, arguments)["seconds"]
    for name in names:
        found = in_a_process(name, arguments)
        after = in_a_process(PLAIN, arguments)["seconds"]
        best = min(found["seconds"])
        yield (
            name,
            {
                "seconds": round(best, 2),
                "times_finetune": round(2 * best / (min(before) + min(after)), 2),
                "merging_seconds": round(found["merging"], 2),
                "peak_megabytes": round(found["peak_bytes"] / 1e6),
            },
        )
        before = after


def main() -> None:
    """Print a table, or one JSON object, of what training on a second task takes by each method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=125, help="a task (default: 125, an epoch)")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts (default: 2)")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, folder = arguments.measure
        print(json.dumps(measured(name, Path(folder), arguments.steps, arguments.rounds)))
        return
    costs = compared(arguments.methods.split(","), arguments)
    if arguments.json:
        print(json.dumps(dict(costs), indent=2))
        return
    print(
        "| method | training, s | times fine-tuning | merging, s | peak memory |\n|---|---:|---:|---:|---:|"
    )
    for name, cost in costs:
        seconds, ratio, merging, peak = cost.values()
        print(f"| {name} | {seconds:.2f} | {ratio:.2f} | {merging or ''} | {peak} MB |", flush=True)


if __name__ == "__main__":
    main()
