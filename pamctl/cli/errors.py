"""Which failure ends with which exit code, and how it is told."""

import errno
import os
import sys
from collections.abc import Callable

import click

from pamctl.printable import printable
from pamctl.refusal import Refusal

INTERRUPTED = 130
CLOSED_PIPE = 141


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command and return its exit code, telling any known failure in two lines on stderr."""
    stdout = sys.stdout
    try:
        ended = command()
        if sys.stdout is not None:  # closed by the shell with >&-
            sys.stdout.flush()
        # outside its standalone mode click returns the code of an Exit raised inside instead of raising it
        return ended if isinstance(ended, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:
        asked.show()
        return asked.exit_code
    except click.ClickException as fault:
        context = getattr(fault, "ctx", None)
        place = context.command_path if context else "pamctl"
        return _told(fault.format_message(), f"see {place} --help", fault.exit_code, fault)
    except Refusal as refusal:
        return _told(refusal.what, refusal.way_on, refusal.exit_code, refusal)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted", err=True)
        return INTERRUPTED
    except SystemExit:
        # click replaces a closed stdout before it exits with 1; it exits from completion, too
        if sys.stdout is stdout:
            raise
        return CLOSED_PIPE
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes stdout once more at exit
        return CLOSED_PIPE
    except MemoryError as fault:
        return _told("out of memory", "use a smaller batch, or a machine with more memory", 1, fault)
    except OSError as fault:
        where = f" ({fault.filename})" if fault.filename else ""
        way_on = "free some disk space, then run again" if fault.errno == errno.ENOSPC else "check the path"
        return _told(f"{fault.strerror or fault}{where}", way_on, 1, fault)


def _told(what: str, way_on: str, code: int, cause: BaseException) -> int:
    if os.environ.get("PAMCTL_DEBUG") == "1":
        raise cause
    click.echo(f"Error: {printable(what)}\nHint: {printable(way_on)}", err=True)
    return code
