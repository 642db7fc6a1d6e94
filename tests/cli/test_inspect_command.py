import json
from pathlib import Path

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.inspect import inspect
from tests.adapter_cases import SIZES, child_of, on_base, random_adapter, saved, write_peft

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first = random_adapter(tasks=("a",), base=on_base("feedc0de"))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1), tmp_path / "second")
    write_peft(tmp_path / "foreign")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return exit_code_of(lambda: inspect.main(list(arguments), standalone_mode=False))


def test_one_adapter(capsys: Capture) -> None:
    assert run("first") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for shown in ("tiny feedc0de", "tasks        a", "made by      trained", "rank         4", "gate_proj"):
        assert shown in out
    assert not any(module in out for module in SIZES)


def test_tensors_lists_every_module(capsys: Capture) -> None:
    assert run("first", "second", "--tensors") == 0
    out = capsys.readouterr().out
    assert all(out.count(module) == 2 for module in SIZES)


def test_two_adapters(capsys: Capture) -> None:
    assert run("first", "second") == 0
    out = capsys.readouterr().out
    for shown in ("cosine", "start        shared", "signs", "cross term"):
        assert shown in out


def test_an_adapter_from_elsewhere(capsys: Capture) -> None:
    assert run("foreign", "first") == 0
    out = capsys.readouterr().out
    assert "made by      not pamctl" in out
    assert "scale 2" in out
    assert "factors      do not fit" in out
    assert "only in the second: 3 modules" in out


def test_json(capsys: Capture) -> None:
    assert run("first", "second", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["schema"] == "pamctl.inspect/1"
    assert "modules" not in payload["adapter"]
    assert payload["other"]["share_a_start"] is True
    assert run("first", "--tensors", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["other"] is None
    assert len(payload["adapter"]["modules"]) == 4


def test_what_does_not_exist_is_told_in_two_lines(capsys: Capture) -> None:
    assert run("hf://org/name") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: no adapter at hf://org/name: no such file or folder\nHint: ")
    assert err.count("\n") == 2
