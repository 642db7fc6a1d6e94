"""Options that say how this process joins the others of its run, if there are any."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = ("distributed", "coordinator", "num_processes", "process_id")


def distributed_options(command: F) -> F:
    """Add --distributed, --coordinator, --num-processes and --process-id."""
    options = (
        click.option(
            "--distributed",
            type=click.Choice(["auto", "on", "off"]),
            default="auto",
            show_default=True,
            help="Join the processes that SLURM, Open MPI, a TPU pod or SkyPilot started.",
        ),
        click.option("--coordinator", metavar="HOST:PORT", help="Where process 0 awaits the others."),
        click.option("--num-processes", type=int, metavar="N", help="Processes of the run."),
        click.option("--process-id", type=int, metavar="I", help="This one of them, from 0."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def join_others(options: dict[str, Any]) -> None:
    """Take these options out of a command's others and join; of several processes the first prints on."""
    import jax

    from pamctl.cli.output import print_nothing, say
    from pamctl.distributed import is_main, join

    mode, coordinator, num_processes, process_id = (options.pop(name) for name in _NAMES)
    told = join(mode, coordinator, num_processes, process_id)
    if jax.process_count() == 1:
        return
    say(told)
    _keep_stdout_for_results()
    if not is_main():
        print_nothing()


def _keep_stdout_for_results() -> None:
    """Send to stderr what libraries write past Python: Gloo tells stdout of every connection it makes."""
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(results, "w")
