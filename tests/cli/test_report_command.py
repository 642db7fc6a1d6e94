"""`pamctl report`: the folder on stdout, the table on stderr."""

import json
from pathlib import Path

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.report import report
from pamctl.evaluation.results import Result, append_results

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = Result("a", "trained", ("a",), "exact", 60.0, 4, method="pam", seed=0)
    append_results(Path("r.jsonl"), [one])


def run(*arguments: str) -> int:
    return exit_code_of(lambda: report.main(list(arguments), standalone_mode=False))


def test_stdout_is_the_folder_or_the_numbers(capsys: Capture) -> None:
    assert run("r.jsonl", "-o", "report") == 0
    out, err = capsys.readouterr()
    assert out == "report\n"
    assert "pam" in err
    assert "60.00" in err
    assert run("r.jsonl", "-o", "report", "--force", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["path"]) == ("pamctl.report/1", "report")
    written = json.loads(Path("report/metrics.json").read_text())
    assert {**told, "schema": written["schema"]} == {**written, "path": "report"}


def test_against_names_a_system(capsys: Capture) -> None:
    assert run("r.jsonl", "-o", "report", "--against", "pam", "--json") == 0
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["against"] == "pam"
    assert run("r.jsonl", "-o", "other", "--against", "magmax") == 2
    assert "no system is called 'magmax'" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_taken_folder_and_a_broken_file_are_refused(capsys: Capture) -> None:
    Path("report").mkdir()
    assert run("r.jsonl", "-o", "report") == 1
    assert "already exists" in capsys.readouterr().err
    Path("bad.jsonl").write_text("[1]\n")
    assert run("r.jsonl", "bad.jsonl", "-o", "new") == 1
    assert "bad.jsonl line 1" in capsys.readouterr().err
    assert run("absent.jsonl", "-o", "new") == 2
    assert not Path("new").exists()
