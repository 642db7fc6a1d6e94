"""`--push-to`: the option by which a command that writes an adapter puts it on the Hub too."""

from functools import partial
from pathlib import Path

import click


def _checked(context: click.Context, parameter: click.Parameter, repository: str | None) -> str | None:
    """Refuse before any work what the Hub would not take after it."""
    if repository is not None and not context.resilient_parsing:
        from pamctl.hub import refuse_bad_repository, refuse_no_token

        refuse_bad_repository(repository)
        refuse_no_token()
    return repository


push_option = click.option(
    "--push-to",
    metavar="ORG/NAME",
    callback=_checked,
    help="Upload the output to this repository on the Hub, which is made if it is not there; a folder takes "
    "the place of an adapter that it holds.",
)


def say_where_it_would_be_pushed(repository: str | None) -> None:
    """Tell what a dry run leaves out."""
    from pamctl.cli.output import say

    if repository is not None:
        say(f"would push to {repository} on the Hub")


def pushed_to(repository: str | None, output: Path) -> str | None:
    """Push what stands at `output` where `--push-to` was given, and tell the commit's URL.

    Raises:
        Refusal: it does not succeed, or another adapter would be read there (see `replaced_files`); the
            output stays, and the way on says how to push it by hand.
    """
    if repository is None:
        return None
    from pamctl.adapters import open_adapter
    from pamctl.adapters.card import card
    from pamctl.adapters.replacing import replaced_files
    from pamctl.cli.output import say
    from pamctl.hub import push

    command = click.get_current_context().command.name
    written = open_adapter(output) if output.is_file() else None
    beside = card(written, written.origin.format) if written and written.origin else None
    replaced = partial(replaced_files, where=repository, is_folder=output.is_dir())
    say(f"pushing to {repository} ...")
    url = push(output, repository, f"Adapter written by pamctl {command}", replaced, beside)
    say(f"pushed to {url}")
    return url
