"""The `pamctl` command group."""

import signal
import sys

import click

from pamctl import __version__
from pamctl.cli.align import align
from pamctl.cli.convert import convert
from pamctl.cli.convert_base import convert_base
from pamctl.cli.demo import demo
from pamctl.cli.errors import exit_code_of
from pamctl.cli.eval import eval_
from pamctl.cli.inspect import inspect
from pamctl.cli.interrupts import repeat_interrupts
from pamctl.cli.merge import merge
from pamctl.cli.report import report
from pamctl.cli.run import run as run_
from pamctl.cli.tasks import tasks
from pamctl.cli.train_task import train_task


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pamctl")
def pamctl() -> None:
    """Continual learning by LoRA merging: one adapter that learns task after task.

    \b
    Start here:   pamctl demo
    One task:     pamctl train-task tiny-scienceqa -o first
    The next:     pamctl train-task tiny-textvqa --global first -o second
                  pamctl merge first second -o merged
                  pamctl eval merged --task tiny-scienceqa --task tiny-textvqa

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage, 75 stopped with a
    checkpoint saved (run again with --resume), 130 interrupted. PAMCTL_DEBUG=1 shows tracebacks.

    Completion: eval "$(_PAMCTL_COMPLETE=bash_source pamctl)" (also zsh_source, fish_source).
    """


for command in (train_task, align, merge, eval_, report, run_, inspect, convert, convert_base, tasks, demo):
    pamctl.add_command(command)


def run() -> None:
    """Entry point of the `pamctl` program."""
    # Ended as by an error, so that a half-written output is taken away; training saves a checkpoint instead.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    repeat_interrupts()
    sys.exit(exit_code_of(lambda: pamctl(standalone_mode=False)))
