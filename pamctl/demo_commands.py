"""The demo as a shell script: the single commands that train, merge and evaluate the same adapters."""

import shlex
from pathlib import Path

from pamctl.training.configuration import Settings
from pamctl.training.methods import METHODS, Method
from pamctl.whole_output import whole_file

RESULTS = "results.jsonl"
COMPARED = ("finetune", "average", "pam")
"""The methods of the demo, by name."""
HEAD = """\
#!/bin/sh
# What `pamctl demo` did, as single commands: sh commands.sh [FOLDER]. Each loads the model anew, so this
# takes longer; the adapters and scores are the same. Run it again to go on after a stop.
set -e
mkdir -p "${1:-by-hand}"
cd "${1:-by-hand}"
"""


def write_commands(file: Path, names: tuple[str, ...], settings: Settings, base: str | None) -> None:
    """Write the script for tasks in this order, with the settings that are not the tasks' own."""
    if base and Path(base).exists():
        base = str(Path(base).absolute())  # the script runs in a folder of its own
    flags = f" --base {shlex.quote(base)}" if base else ""
    first = first_folder(names)
    lines = [
        _evaluated("", names, flags),
        f"pamctl train-task {names[0]} -o {first}{_given(settings)}{flags} --resume",
        _evaluated(first, names[:2], flags),
    ]
    for method in COMPARED:
        lines += ["", *_learned(METHODS[method], names, settings, flags)]
    lines += ["", f"pamctl report {RESULTS} -o report --force"]
    with whole_file(file, force=True) as draft:
        draft.write_text(HEAD + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def first_folder(names: tuple[str, ...]) -> str:
    """Where the adapter of the first task lies, within the demo's folder."""
    return f"1-{names[0]}"


def _learned(method: Method, names: tuple[str, ...], settings: Settings, flags: str) -> list[str]:
    lines, state = [], first_folder(names)
    for t, task in enumerate(names[1:], start=1):
        folder = f"{method.name}/{t + 1}-{task}"
        trained, merged = f"{folder}/trained", f"{folder}/merged"
        lines.append(
            f"pamctl train-task {task} --global {state} --method {method.name} -o {trained}"
            f"{_given(settings)}{flags} --resume"
        )
        if method.merge is not None:
            lines.append(_evaluated(trained, (task,), flags))
            lines.append(
                f"test -d {merged} || pamctl merge {state} {trained} --method {method.merge['method']} "
                f"--space factor -o {merged}"
            )
        state = trained if method.merge is None else merged
        lines.append(_evaluated(state, names[: t + 2], flags))
    return lines


def _evaluated(adapter: str, tasks: tuple[str, ...], flags: str) -> str:
    options = " ".join(f"--task {task}" for task in tasks)
    return f"pamctl eval {adapter} {options}{flags} --results {RESULTS}".replace("  ", " ")


def _given(settings: Settings) -> str:
    return "".join(f" --{name} {value}" for name, value in settings.items() if (name, value) != ("seed", 0))
