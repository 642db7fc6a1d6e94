"""A whole sequence: every cell trained, merged and scored, what is done already kept, and the report."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pamctl.evaluation.report import Report, write_report
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.sequences.commands import Commands, script
from pamctl.sequences.contents import SequenceFile
from pamctl.sequences.folder import REPORT, open_folder
from pamctl.sequences.grid import Cell, Unit, cells_of, units_of
from pamctl.sequences.job_files import Cluster, write_jobs
from pamctl.sequences.processes import Processes
from pamctl.sequences.progress import WorkDone
from pamctl.sequences.scheduling import Failures, work_through
from pamctl.sequences.sequence_file import read_sequence
from pamctl.sequences.setup import Setup
from pamctl.sequences.steps import RESULTS
from pamctl.sequences.task_places import located
from pamctl.sequences.worker import Worker
from pamctl.tasks import Task
from pamctl.training.stop_request import StopRequest

Only = Mapping[str, Sequence[str]]


def _silent(message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Grid:
    """The part of a sequence that is wanted, checked but for its tasks and the base.

    Attributes:
        setup: what each process needs.
    """

    file: SequenceFile
    cells: tuple[Cell, ...]
    units: tuple[Unit, ...]
    setup: Setup


@dataclass(frozen=True)
class Ran:
    """What a run left.

    Attributes:
        failures: why units were not done, by name.
        report: of all results in the folder; None where there are none.
    """

    out: Path
    cells: tuple[Cell, ...]
    failures: Failures = field(default_factory=dict)
    report: Report | None = None


def grid_of(
    sequence: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    base: str | None = None,
    only: Only | None = None,
) -> Grid:
    """Read a sequence and lay out its cells; arguments and errors as for `run_sequence`."""
    file = read_sequence(sequence, base)
    cells = cells_of(file, only)
    used = {name for cell in cells for name in cell.tasks}
    places = {name: place for name, place in located(file, data).items() if name in used}
    setup = Setup(Path(out), file.base, file.held, places)
    return Grid(file, tuple(cells), tuple(units_of(file, cells)), setup)


def run_sequence(
    sequence: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    base: str | None = None,
    only: Only | None = None,
    jobs: int = 1,
    force: bool = False,
    on_work: Callable[[int, int, str], None] = lambda done, total, what: None,
    report: Callable[[str], None] = _silent,
    on_failure: Callable[[Unit, Refusal], None] = lambda unit, refusal: None,
    warn: Callable[[str], None] = _silent,
) -> Ran:
    """Do every cell of a sequence in the folder `out`; run again, it goes on where it was.

    Args:
        sequence: a sequence file, or the name of a shipped one.
        data: folder from which paths of tasks start, in place of the file's.
        base: the base model, in place of the file's.
        only: for `order`, `seed` and `method` the values that are wanted; None for all.
        jobs: processes that work at the same time, each with a base of its own.
        force: start over in a folder of a run.
        on_work: told work done, work in all, and what is under way.
        report: told each score of interest as it is found.
        on_failure: told each unit that cannot be done, and why; the others go on.
        warn: told what to know before trusting the scores.

    Raises:
        Refusal: the folder is of something else, or holds a sequence that says otherwise of the same cells.
        UsageRefusal: the file or an option is at fault.
        Preempted: stopped by SIGTERM, with a checkpoint saved where a training was under way.
    """
    if jobs < 1:
        raise UsageRefusal(f"--jobs is {jobs}", "give a number 1 or more")
    grid = grid_of(sequence, out, data=data, base=base, only=only)
    tasks = grid.setup.open_tasks()
    for note in dict.fromkeys(note for task in tasks.values() for note in task.notes):
        warn(note)
    open_folder(grid.setup.out, grid.file, force=force)
    done = WorkDone(grid.units, tasks, on_work)
    with StopRequest() as stop:
        if jobs == 1:
            base_model = grid.setup.load_base()
            for note in base_model.notes:
                warn(note)
            worker = Worker(grid.setup.out, base_model, tasks, stop, done.add, report, warn)
            failures = work_through(grid.units, worker.do, on_failure)
        else:
            processes = Processes(grid.setup, jobs, stop, done.add, report, warn, on_failure)
            failures = processes.work_through(grid.units)
    return Ran(grid.setup.out, grid.cells, failures, _report(grid.setup.out, list(tasks.values())))


def script_of(
    sequence: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    base: str | None = None,
    only: Only | None = None,
) -> str:
    """The same as a shell script; arguments and errors as for `run_sequence`."""
    grid = grid_of(sequence, out, data=data, base=base, only=only)
    grid.setup.open_tasks()
    place = shlex.quote(str(grid.setup.out.absolute()))
    return script(str(sequence), place, grid.units, _commands(grid))


def emit_jobs(
    sequence: str | Path,
    out: str | Path,
    cluster: Cluster,
    *,
    data: str | None = None,
    base: str | None = None,
    only: Only | None = None,
    force: bool = False,
) -> Path:
    """Write the same as jobs of a cluster, and return the script that submits them.

    Arguments and errors are those of `run_sequence`.
    """
    grid = grid_of(sequence, out, data=data, base=base, only=only)
    grid.setup.open_tasks()
    open_folder(grid.setup.out, grid.file, force=force)
    given = {"-o": out, "--data": data, "--base": base}
    again = ["pamctl", "run", _absolute(str(sequence))]
    again += [word for flag, value in given.items() if value for word in (flag, _absolute(str(value)))]
    again += [f"--only={key}={','.join(values)}" for key, values in (only or {}).items()]
    return write_jobs(grid.setup.out, grid.units, _commands(grid), cluster, again)


def _report(out: Path, tasks: Sequence[Task]) -> Report | None:
    """The report of all that the folder holds, written into it; None where nothing was scored."""
    if not (out / RESULTS).exists():
        return None
    return write_report([out], out / REPORT, tasks=tasks, force=True)


def _commands(grid: Grid) -> Commands:
    return Commands(grid.setup.tasks, grid.setup.base, grid.setup.held)


def _absolute(reference: str) -> str:
    return str(Path(reference).absolute()) if Path(reference).exists() else reference
