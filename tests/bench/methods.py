"""Times every method's training on a second embedded task beside fine-tuning's, in the same process (--help).

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
from pamctl.training.inheritance import Inheritance
from pamctl.training.loop import Run, train
from pamctl.training.methods import METHODS
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import prepare

PLAIN = "finetune"


def run_of(name: str, bench: Workbench, folder: Path, steps: int) -> Run:
    """A method's run on the second task, the first one learned by the same method; all at once if it does."""
    method, names = METHODS[name], [*bench.tasks]
    settings: Any = {"method": name, "steps": steps}
    before = Inheritance()
    if method.continues:
        before = Inheritance(bench.trained(names[:1], settings, folder / name))
    chosen = names if method.at_once else names[1:]
    return prepare([bench.tasks[task] for task in chosen], bench.base, before, settings).run


def seconds_of(run: Run) -> float:
    """What training once takes."""
    started = time.perf_counter()
    train(run, MetricsLog())
    return time.perf_counter() - started


def measured(name: str, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a step by a method and by fine-tuning, in turns, and the method's peak memory."""
    keep_compiled_programs()
    tasks = embedded_tasks()
    bench = Workbench(load_base(), {task: tasks[task] for task in ORDERS[0][:2]})
    run = run_of(name, bench, folder, steps)
    seconds_of(run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    plain = run_of(PLAIN, bench, folder, steps)
    seconds_of(plain)
    taken = [(seconds_of(run), seconds_of(plain)) for _ in range(rounds)]
    ours, floor = (1000 * min(column) / steps for column in zip(*taken, strict=True))
    return {
        "milliseconds_a_step": round(ours, 1),
        "finetune_milliseconds": round(floor, 1),
        "times_finetune": round(ours / floor, 2),
        "peak_megabytes": round(peak / 1e6),
    }


def compared(names: Sequence[str], arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each method, measured in a process of its own."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--measure", name, folder]
            command += ["--steps", str(arguments.steps), "--rounds", str(arguments.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        yield name, json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table, or one JSON object, of what training on a second task takes by each method."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--steps", type=int, default=60, help="of a training (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts (default: 3)")
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
    print("| method | ms a step | fine-tuning beside it | times | peak memory |")
    print("|---|---:|---:|---:|---:|")
    for name, cost in costs:
        step, plain, ratio, peak = cost.values()
        print(f"| {name} | {step:.1f} | {plain:.1f} | {ratio:.2f} | {peak} MB |", flush=True)


if __name__ == "__main__":
    main()
