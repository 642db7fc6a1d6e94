"""stdout carries the result alone; progress is one line every few seconds where nobody watches."""

import json

import pytest
from rich.table import Table

from pamctl.cli import output


def test_results_go_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_result("path")
    output.say("talk")
    output.warn("careful")
    captured = capsys.readouterr()
    assert captured.out == "path\n"
    assert captured.err == "talk\nWarning: careful\n"


def test_json_is_one_line_with_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json("merge", {"path": "größe"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"schema": "pamctl.merge/1", "path": "größe"}
    assert out.count("\n") == 1
    assert "größe" in out


def test_names_of_files_that_are_no_text_are_printed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.print_result("a\udcff")
    output.print_json("x", {"path": "a\udcff"})
    path, line = capfdbinary.readouterr().out.splitlines()
    assert path == b"a\xff"
    assert json.loads(line)["path"] == "a\udcff"


def test_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[/]")
    table.add_row("[bold]:smile:")
    output.print_table(table, to_stdout=True)
    told = capsys.readouterr().out
    assert "[/]" in told
    assert "[bold]:smile:" in told


def test_json_refuses_what_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        output.print_json("x", {"loss": float("nan")})


def test_plain_progress_tells_the_last_step_and_little_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    with output.Progress("gqa", 100) as progress:
        for step in range(1, 101):
            now = step / 10  # not a sum of tenths, which is never quite 5
            progress.update(step, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "gqa: step 50/100 loss 50 about 5 s left"
    assert lines[-1] == "gqa: step 100/100 loss 100"
    assert len(lines) == 2
