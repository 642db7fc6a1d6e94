"""`pamctl eval`: what is on stdout, what is refused, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.eval import eval_
from tests.training_cases import write_base, write_task

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    write_base(folder / "base")
    write_task(folder, "red")
    return folder


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def run(*arguments: str) -> int:
    return exit_code_of(lambda: eval_.main(list(arguments), standalone_mode=False))


def test_stdout_is_the_table_the_path_or_the_object(tmp_path: Path, capsys: Capture) -> None:
    common = ("--task", "red.jsonl", "--base", "base", "--limit", "3")
    results = str(tmp_path / "results.jsonl")
    assert run(*common) == 0
    table = capsys.readouterr()
    assert run(*common, "--results", results) == 0
    path = capsys.readouterr()
    assert run(*common, "--results", results, "--json") == 0
    payload = capsys.readouterr()
    assert table.out.splitlines()[0].split() == ["task", "metric", "score", "(%)", "n"]
    assert table.out.splitlines()[1].split()[:2] == ["red", "exact"]
    assert "Warning: task red names no splits" in table.err
    assert path.out == f"{results}\n"
    told = json.loads(payload.out)
    assert told["schema"] == "pamctl.eval/1"
    assert told["results"] == [json.loads(line) for line in Path(results).read_text().splitlines()][1:]
    assert told["results"][0]["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--task", "tiny-gqq"), 2, "did you mean tiny-gqa?"),
        (("--task", "red.jsonl", "--base", "nowhere"), 1, "nowhere"),
        (("nowhere", "--task", "red.jsonl", "--base", "base"), 1, "nowhere"),
        (("--task", "red.jsonl", "--base", "base", "--split", "val"), 2, "use one of: train, test"),
        (("--task", "red.jsonl", "--results", "red.jsonl/x"), 1, "cannot be made"),
        (("--task", "red.jsonl", "--predictions", "red.jsonl"), 1, "already exists"),
        (("--task", "red.jsonl", "--limit", "0"), 2, "--limit"),
        ((), 2, "--task"),
    ],
)
def test_refusals_are_two_lines_and_leave_stdout_empty(
    arguments: tuple[str, ...], code: int, told: str, capsys: Capture
) -> None:
    found = run(*arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert "Traceback" not in err
    assert found in (code, 1, 2)
    assert found != 0


def test_a_process_of_its_own_keeps_stdout_clean(tmp_path: Path) -> None:
    program = "import sys; from pamctl.cli.errors import exit_code_of; from pamctl.cli.eval import eval_; "
    program += "sys.exit(exit_code_of(lambda: eval_(standalone_mode=False)))"
    arguments = ("--task", "red.jsonl", "--base", "base", "--limit", "2", "--json")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["task"] == "red"
