"""The whole continual sequence on the embedded tasks, for three methods side by side from one first task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pamctl.adapters import open_adapter
from pamctl.distributed import Devices
from pamctl.evaluation.report import Report, write_report
from pamctl.models.base import load_base
from pamctl.refusal import UsageRefusal
from pamctl.sequences.commands import Commands, script
from pamctl.sequences.folder import REPORT, record_in, refuse_changes, write_record
from pamctl.sequences.grid import Unit, cells_of, units_of
from pamctl.sequences.progress import WorkDone
from pamctl.sequences.sequence_file import sequence_of
from pamctl.sequences.steps import Train
from pamctl.sequences.worker import Worker
from pamctl.tasks.embedded import ORDERS, embedded_tasks
from pamctl.training.checkpoints import differences
from pamctl.training.stop_request import StopRequest
from pamctl.whole_output import whole_file

SCHEMA = "pamctl.demo-plan/1"
PLAN, COMMANDS = "demo.json", "commands.sh"
COMPARED = ("finetune", "average", "pam")
"""The methods of the demo, by name."""
PLACE_OF_COMMANDS = '"${1:-by-hand}"'
"""Where commands.sh works: in the folder that it is given."""


@dataclass(frozen=True)
class Demo:
    """What a demo found.

    Attributes:
        folder: adapters, results.jsonl, report/ and commands.sh.
        differ_percent: per method, how many of the task adapter's signs differ from the adapter it started
            from, at the end of a task and before merging, averaged over the tasks after the first.
    """

    folder: Path
    report: Report
    differ_percent: dict[str, float]


def run_demo(
    out: str | Path = "pamctl-demo",
    *,
    tasks: int | None = None,
    steps: int | None = None,
    order: int = 1,
    seed: int = 0,
    force: bool = False,
    base: str | None = None,
    on_work: Callable[[int, int, str], None] = lambda done, total, what: None,
    report: Callable[[str], None] = lambda message: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Demo:
    """Learn the embedded tasks by each of `COMPARED`; run again in the same folder, it goes on where it was.

    Args:
        out: folder to write, laid out as by `pamctl run`; adapters and scores that are there are kept.
        tasks: only the first so many tasks, at least 2.
        steps: optimiser steps a task; None takes the tasks' own.
        order: 1, 2 or 3, a place in `pamctl.tasks.embedded.ORDERS`.
        force: start over in a folder that an earlier demo wrote.
        base: the base model; None for the embedded one.
        on_work: told work done, work in all, and what is under way.
        report: told each score of interest as it is found.
        warn: told what to know before trusting the scores.

    Raises:
        Refusal: the folder is not a demo's, or holds one with other options.
        UsageRefusal: an option is out of range.
        Preempted: stopped by SIGTERM, with a checkpoint saved where a training was under way.
    """
    out = Path(out)
    names = _chosen_order(order, tasks)
    units = _units(names, f"order-{order}", steps, seed)
    model = load_base(base, devices=Devices.alone())
    _open_folder(out, {"tasks": list(names), "steps": steps, "seed": seed, "base": model.fingerprint}, force)
    with whole_file(out / COMMANDS, force=True) as draft:
        commands = Commands({name: name for name in names}, base, {})
        draft.write_text(script("`pamctl demo`", PLACE_OF_COMMANDS, units, commands), encoding="utf-8")
    embedded = embedded_tasks()
    chosen = {name: embedded[name] for name in names}
    with StopRequest() as stop:
        worker = Worker(out, model, chosen, stop, WorkDone(units, chosen, on_work).add, report, warn)
        for unit in units:
            worker.do(unit)
    written = write_report([out], out / REPORT, force=True)
    return Demo(out, written, _differ_percent(out, units))


def _chosen_order(order: int, tasks: int | None) -> tuple[str, ...]:
    if not 1 <= order <= len(ORDERS):
        raise UsageRefusal(f"--order is {order}", f"give a number from 1 to {len(ORDERS)}")
    names = ORDERS[order - 1]
    if tasks is not None and not 2 <= tasks <= len(names):
        raise UsageRefusal(f"--tasks is {tasks}", f"give a number from 2 to {len(names)}")
    return names[:tasks]


def _units(names: Sequence[str], order: str, steps: int | None, seed: int) -> list[Unit]:
    table = {
        "orders": {order: list(names)},
        "seeds": [seed],
        "methods": list(COMPARED),
        "settings": {} if steps is None else {"steps": steps},
    }
    file = sequence_of(table, "pamctl demo")
    return units_of(file, cells_of(file), diagnose=False)


def _open_folder(out: Path, options: dict[str, Any], force: bool) -> None:
    """Make the folder of a demo, or go on in one with the same options."""
    plan = {"schema": SCHEMA, **options}
    before = record_in(out, PLAN, SCHEMA, "demo", force=force)
    if before is not None:
        refuse_changes(out, "a demo with other options", differences(before, plan))
    write_record(out / PLAN, plan)


def _differ_percent(out: Path, units: Sequence[Unit]) -> dict[str, float]:
    found = {}
    for unit in units:
        if unit.cell is not None:
            adapters = [open_adapter(out / step.out) for step in unit.steps if isinstance(step, Train)]
            found[unit.cell.system.method] = fmean(
                adapter.provenance.conflicts["overall"]["differ_percent"]
                for adapter in adapters
                if adapter.provenance and adapter.provenance.conflicts
            )
    return found
