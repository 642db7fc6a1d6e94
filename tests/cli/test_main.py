"""The command group: fast help, light imports, examples that run, exit codes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pamctl.cli.main import pamctl
from tests.warm_pamctl import WarmPamctl

Named = tuple[str, click.Command]


def commands(group: click.Group = pamctl, prefix: str = "pamctl") -> Iterator[Named]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(commands())


def examples(command: click.Command) -> list[str]:
    return re.findall(r"^ +(pamctl .+)$", command.help or "", re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_and_shows_an_example_of_itself(name: str) -> None:
    assert COMMANDS[name].get_short_help_str()
    assert any(example.startswith(name) for example in examples(COMMANDS[name]))
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and not parameter.metavar:
            assert parameter.help, f"{name} {parameter.name}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, warm: WarmPamctl) -> Path:
    """Where every example can run: two adapters, two merges of them, a task of one's own, results."""
    folder = tmp_path_factory.mktemp("examples")
    for line in (
        "pamctl train-task tiny-scienceqa -o first --steps 2",
        "pamctl train-task tiny-textvqa --global first -o second --steps 2",
        "pamctl merge first second -o merged",
        "pamctl merge first second -o sparse --method ties --density 0.5 --rank 8",
        "pamctl tasks show tiny-gqa --save picture.png",
        "pamctl eval merged --task tiny-gqa --limit 2 --results results.jsonl --predictions answers.jsonl",
    ):
        succeeds(warm, line, folder)
    task = '{"image": "picture.png", "question": "what is it ?", "answer": "a square"}\n'
    (folder / "my-task.jsonl").write_text(task)
    return folder


def succeeds(warm: WarmPamctl, line: str, folder: Path) -> None:
    program, *arguments = shlex.split(line)
    assert program == "pamctl"
    done = warm(*arguments, cwd=folder)
    assert done.code == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("pamctl demo", "pamctl run")])
def test_examples_run(name: str, workplace: Path, warm: WarmPamctl) -> None:
    """Each with outputs of its own, so that examples do not get into each other's way."""
    for number, line in enumerate(examples(COMMANDS[name])):
        own = f"{name.split()[-1]}-{number}"
        line = re.sub(r"(-o|--results|--predictions|--save) (\S+)", rf"\1 {own}/\2", line)
        line = re.sub(r"^pamctl report \S+", "pamctl report results.jsonl", line)
        line = re.sub(r"--baseline \S+", "--baseline results.jsonl", line)
        (workplace / own).mkdir(exist_ok=True)
        if line.startswith("pamctl train-task") and "--epochs" not in line:
            line += " --steps 2"
        if line.startswith("pamctl eval") and "--limit" not in line:
            line += " --limit 2"
        succeeds(warm, line, workplace)


def test_help_is_fast_and_imports_no_array_library() -> None:
    script = (
        "import sys\nfrom pamctl.cli.main import run\nsys.argv = ['pamctl', '--help']\n"
        "try:\n    run()\nfinally:\n"
        "    heavy = {'numpy', 'jax', 'rich', 'PIL', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    seconds = min(help_seconds() for _ in range(5))
    assert seconds < 0.2


def help_seconds() -> float:
    """CPU time of `pamctl --help`, so that a busy machine does not count."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([Path(sys.executable).parent / "pamctl", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_an_unknown_command_or_option_is_usage() -> None:
    for line in (["no-such-command"], ["merge", "--no-such-option"], ["merge", "a", "b"]):
        done = subprocess.run([sys.executable, "-m", "pamctl", *line], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout == ""


def test_version_and_short_help_option() -> None:
    assert CliRunner().invoke(pamctl, ["--version"]).output.startswith("pamctl, version ")
    assert CliRunner().invoke(pamctl, ["-h"]).exit_code == 0


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_script(shell_name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "pamctl"],
        env={"_PAMCTL_COMPLETE": f"{shell_name}_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert "_PAMCTL_COMPLETE" in done.stdout
