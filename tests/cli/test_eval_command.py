"""`pamctl eval`: what is on stdout, what is refused, exit codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pamctl.cli.errors import exit_code_of
from pamctl.cli.eval import eval_, score_table
from pamctl.evaluation.results import Result, TypeScore
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
    assert table.out in path.err
    told = json.loads(payload.out)
    assert told["schema"] == "pamctl.eval/1"
    [line] = Path(results).read_text().splitlines()
    assert told["results"] == [json.loads(line)]
    assert told["results"][0]["n"] == 3
    assert f"is in {results} already; --force evaluates it again" in payload.err
    assert run(*common, "--results", results, "--force") == 0
    assert Path(results).read_text().splitlines() == [line, line]


def test_from_predictions_the_same_comes_out_without_the_model(tmp_path: Path, capsys: Capture) -> None:
    results, kept, again = (str(tmp_path / name) for name in ("r.jsonl", "p.jsonl", "again.jsonl"))
    made = ("--base", "base", "--results", results, "--predictions", kept)
    assert run("--task", "red.jsonl", "--limit", "4", *made) == 0
    scored = ("--from-predictions", kept, "--task", "red.jsonl", "--limit", "4")
    capsys.readouterr()
    assert run(*scored, "--results", results, "--predictions", again, "--json") == 0
    [line] = Path(results).read_text().splitlines()
    assert json.loads(capsys.readouterr().out)["results"] == [json.loads(line)]
    assert Path(again).read_bytes() == Path(kept).read_bytes()
    assert run(*scored) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "red"
    program = "import sys; from pamctl.cli.eval import eval_; eval_(standalone_mode=False); "
    program += "sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, *scored], timeout=60, check=True, capture_output=True)
    assert run("--from-predictions", kept, "--task", "red.jsonl") == 1
    assert "6 ids (red-4, red-5, red-6, ...): not answered" in capsys.readouterr().err


def table_of(scored: list[Result]) -> list[str]:
    console = Console(width=80, file=io.StringIO(), markup=False)  # as print_table has it
    with console.capture() as captured:
        console.print(score_table(scored))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_table_has_types_and_what_could_not_be_read() -> None:
    types = {"[b]count": TypeScore(100.0, 1), "yes/no": TypeScore(25.0, 2)}
    scored = [
        Result("letters", "base", (), "scienceqa", 50.0, 3, types=types, unread=2),
        Result("red", "base", (), "exact", 10.0, 10),
    ]
    assert table_of(scored) == [
        "task        metric     score (%)   n  unread",
        "letters     scienceqa      50.00   3       2",
        "  [b]count                100.00   1",
        "  yes/no                   25.00   2",
        "red         exact          10.00  10       0",
    ]
    assert table_of(scored[1:])[0].split() == ["task", "metric", "score", "(%)", "n"]


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
        (("--task", "red.jsonl", "--from-predictions", "no.jsonl"), 2, "no.jsonl is not a file"),
        (("--task", "red.jsonl", "--from-predictions", "p", "--base", "base"), 2, "and --base is given"),
        (("mine", "--task", "red.jsonl", "--from-predictions", "p"), 2, "and ADAPTER is given"),
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


def test_two_processes_at_once_append_both_results_and_keep_stdout_clean(tmp_path: Path) -> None:
    program = "import sys; from pamctl.cli.errors import exit_code_of; from pamctl.cli.eval import eval_; "
    program += "sys.exit(exit_code_of(lambda: eval_(standalone_mode=False)))"
    results = tmp_path / "r.jsonl"
    given = ("--task", "red.jsonl", "--base", "base", "--limit", "2", "--json", "--results", str(results))
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, *given, "--run", label],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for label in "xy"
    ]
    told = [json.loads(process.communicate(timeout=120)[0])["results"] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [result["run"] for (result,) in told] == ["x", "y"]
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(lines, key=lambda line: line["run"]) == [result for (result,) in told]
