"""A sequence as shell commands: the same adapters and scores, step by step."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pamctl.sequences.grid import Unit
from pamctl.sequences.keys import flags
from pamctl.sequences.steps import Merge, Prune, Score, Step, Train
from pamctl.training.configuration import Settings
from pamctl.training.methods import Merging

HEAD = """\
#!/bin/sh
# {name} as single commands. Each loads the model anew, so this takes longer; the adapters and scores are the
# same. Run it again to go on after a stop.
set -e
mkdir -p {place}
cd {place}
"""


class Commands:
    """The commands of steps.

    Args:
        tasks: what `train-task` is given for each task, by name.
        held: how the base is held, which evaluation is told too.
    """

    def __init__(self, tasks: Mapping[str, str], base: str | None, held: Settings) -> None:
        self._tasks = tasks
        self._base = (
            [] if base is None else ["--base", str(Path(base).absolute()) if Path(base).exists() else base]
        )
        self._held = flags(held)

    def of(self, step: Step) -> str | None:
        """The command of a step, None where it has none; run again, it does no harm."""
        match step:
            case Train():
                return shlex.join(self._train(step))
            case Prune(trained, before, out):
                rule = ["--top-p", "100", "--reinit", "global"]
                return _unless(out, ["align", trained, "--to", before, *rule, "-o", out])
            case Merge(before, trained, by, out):
                how = ["--method", by["method"], "--space", "factor", *_parameters(by)]
                return _unless(out, ["merge", before, trained, *how, "-o", out])
            case Score():
                return shlex.join(self._score(step))
        return None

    def _train(self, step: Train) -> Iterator[str]:
        yield from ("pamctl", "train-task", *(self._tasks[task] for task in step.tasks), "-o", step.out)
        yield from self._base
        if step.before:
            yield from ("--global", step.before)
        if step.previous:
            yield from ("--previous", step.previous)
        yield from (*flags(step.settings), "--resume")

    def _score(self, step: Score) -> Iterator[str]:
        yield from ("pamctl", "eval", *([step.adapter] if step.adapter else []))
        for task in step.tasks:
            yield from ("--task", self._tasks[task])
        yield from (*self._base, *self._held, "--results", step.file)
        for flag, label in (("--order", step.order), ("--run", step.run)):
            if label:
                yield from (flag, label)


def script(name: str, place: str, units: Sequence[Unit], commands: Commands) -> str:
    """A shell script that does all units in a folder, and the report.

    Args:
        place: the folder, as a word of the shell.
    """
    lines = [HEAD.format(name=name, place=place)]
    for unit in units:
        lines.append(f"# {unit.name}")
        lines += [command for step in unit.steps if (command := commands.of(step))]
        lines.append("")
    lines.append("pamctl report . -o report --force")
    return "\n".join(lines) + "\n"


def _parameters(by: Merging) -> Iterator[str]:
    for name, value in by.items():
        if name != "method":
            yield from ("--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}")


def _unless(out: str, words: Sequence[str]) -> str:
    return f"test -d {shlex.quote(out)} || {shlex.join(['pamctl', *words])}"
