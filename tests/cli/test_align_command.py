import json
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from pamctl.adapters import open_adapter
from pamctl.alignment import Reinit, Scope, compare_signs
from pamctl.cli.align import align
from pamctl.cli.errors import exit_code_of
from pamctl.cli.train_task import train_task
from pamctl.training.configuration import PutBack
from tests.adapter_cases import child_of, random_adapter, saved

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1, drift=1.0), tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: align.main(["second", "--to", "first", *arguments], standalone_mode=False))


def test_without_an_output_the_report_is_the_result_and_nothing_is_written(
    folder: Path, capsys: Capture
) -> None:
    assert run() == 0
    out, err = capsys.readouterr()
    assert "in conflict" in out
    assert err == ""
    assert {path.name for path in folder.iterdir()} == {"first", "second"}


def test_with_an_output_stdout_is_its_path(capsys: Capture) -> None:
    assert run("-o", "aligned", "--top-p", "30", "--scope", "tensor") == 0
    out, err = capsys.readouterr()
    assert out == "aligned\n"
    assert "in conflict" in err
    aligned = open_adapter("aligned")
    assert compare_signs(aligned, open_adapter("first"), 30, "tensor")[1].overall.conflicts == 0
    assert aligned.provenance is not None
    assert aligned.provenance.kind == "aligned"


def test_json_holds_the_whole_report(capsys: Capture) -> None:
    assert run("-o", "aligned", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert (payload["schema"], payload["output"], payload["top_p"]) == ("pamctl.align/1", "aligned", 50)
    assert payload["overall"]["conflicts"] == sum(payload["factors"][f]["conflicts"] for f in "ab") > 0
    assert len(payload["modules"]) == 4


def test_fail_above_fails_after_the_report_and_writes_nothing(folder: Path, capsys: Capture) -> None:
    assert run("-o", "aligned", "--fail-above", "1", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["output"] is None
    assert "of the important weights conflict, more than --fail-above 1" in err
    assert not (folder / "aligned").exists()
    assert run("--fail-above", "99") == 0


def test_a_dry_run_writes_nothing(folder: Path, capsys: Capture) -> None:
    assert run("-o", "aligned", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert (out, "in conflict" in err) == ("", True)
    assert not (folder / "aligned").exists()


def test_an_existing_output_needs_force(capsys: Capture) -> None:
    assert run("-o", "second") == 1
    assert "already exists" in capsys.readouterr().err
    assert run("-o", "second", "--force") == 0
    assert run("--fail-above", "0") == 0


@pytest.mark.parametrize(
    "arguments", [["--top-p", "101"], ["--scope", "layer"], ["--reinit", "init"]], ids=" ".join
)
def test_a_wrong_option_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    assert run(*arguments) == 2


@pytest.mark.parametrize(("command", "put_back"), [(align, Reinit), (train_task, PutBack)])
def test_the_command_line_offers_every_scope_and_reinit(command: click.Command, put_back: Any) -> None:
    choices = {option.name: getattr(option.type, "choices", None) for option in command.params}
    assert (choices["scope"], choices["reinit"]) == (get_args(Scope), get_args(put_back))
