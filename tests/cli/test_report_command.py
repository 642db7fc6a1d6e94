"""`pamctl report`: the folder on stdout, the table on stderr."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from PIL import Image

from pamctl.cli.errors import exit_code_of
from pamctl.cli.output import draws_blocks
from pamctl.cli.report import report
from pamctl.evaluation.metrics import FWT, FWT_VARIANTS
from pamctl.evaluation.predictions import Prediction
from pamctl.evaluation.results import Result, append_results

Capture = pytest.CaptureFixture[str]
Monkeypatch = pytest.MonkeyPatch


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


TWO = [
    Result(task, "trained", learned, "exact", score, 4, method="pam", seed=0)
    for learned, task, score in ((("a",), "b", 10.0), (("a", "b"), "a", 20.0), (("a", "b"), "b", 70.0))
]


def test_the_table_tells_forgetting_in_blocks_or_plainly(capsys: Capture, monkeypatch: Monkeypatch) -> None:
    append_results(Path("r.jsonl"), TWO)
    for blocks, end in ((True, "█"), (False, "@")):
        monkeypatch.setattr("pamctl.cli.report_tables.draws_blocks", lambda blocks=blocks: blocks)
        assert run("r.jsonl", "-o", "report", "--force") == 0
        lines = capsys.readouterr().err.splitlines()
        assert any("forgetting" in line for line in lines)
        (pam,) = (line.split() for line in lines if line.startswith("pam"))
        assert pam == ["pam", "45.00", "-40.00", "n/a", "65.00", "65.00", "1", end]


@pytest.mark.parametrize(
    ("encoding", "variables", "blocks"),
    [
        ("utf-8", {}, True),
        ("UTF8", {"TERM": "xterm"}, True),
        ("ascii", {}, False),
        ("utf-8", {"NO_COLOR": "1"}, False),
        ("utf-8", {"TERM": "dumb"}, False),
    ],
)
def test_blocks_are_drawn_where_they_can_be_shown(
    encoding: str, variables: dict[str, str], blocks: bool, monkeypatch: Monkeypatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert draws_blocks() is blocks


def test_a_baseline_is_compared_and_the_exit_code_stays(capsys: Capture) -> None:
    append_results(Path("r.jsonl"), TWO)
    append_results(Path("old.jsonl"), [replace(result, score=result.score / 2) for result in TWO])
    append_results(
        Path("old.jsonl"), [Result("a", "trained", ("a",), "exact", 60.0, 4, method="pam", seed=0)]
    )
    assert run("r.jsonl", "-o", "report", "--baseline", "old.jsonl") == 0
    lines = capsys.readouterr().err.splitlines()
    after = next(n for n, line in enumerate(lines) if "differences from the baseline" in line)
    (pam,) = (line.split() for line in lines[after:] if line.startswith("pam") and "+22.50" in line)
    assert pam == ["pam", "+22.50", "+10.00", "n/a", "+17.50", "+17.50", "1"]
    assert "3 of the 4 cells that both have differ" in lines
    assert "### Differences from the baseline" in Path("report/report.md").read_text()


def test_every_variant_of_fwt_may_be_asked_for() -> None:
    (option,) = (option for option in report.params if option.name == "fwt")
    assert isinstance(option.type, click.Choice)
    assert (list(option.type.choices), option.default) == (list(FWT_VARIANTS), FWT)


def test_one_variant_of_fwt_is_shown(capsys: Capture) -> None:
    assert run("r.jsonl", "-o", "report", "--fwt", "all-unseen", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fwt"]["shown"] == "all-unseen"
    assert "(all-unseen)" in err
    assert run("r.jsonl", "-o", "other", "--fwt", "mine") == 2


def test_the_page_shows_pictures_of_tasks_that_are_named(capsys: Capture) -> None:
    Path("a").mkdir()
    Image.new("RGB", (8, 8), "red").save("a/red.png")
    example = {"image": "red.png", "question": "what colour is it?", "answer": "red", "id": "1"}
    Path("a/a.jsonl").write_text(json.dumps({**example, "split": "test"}) + "\n")
    answer = Prediction("a", "1", "what colour is it?", "blue", ("red",), 0.0, stage="trained", tasks=("a",))
    told = replace(answer, split="test", method="pam", seed=0, adapter="t")
    Path("p.jsonl").write_text(json.dumps(told.to_json()) + "\n")
    learned = Result("a", "trained", ("a",), "exact", 0.0, 1, method="pam", seed=0, adapter="t")
    Path("r.jsonl").write_text(json.dumps(learned.to_json()) + "\n")
    assert run("r.jsonl", "p.jsonl", "-o", "report", "--task", "a/a.jsonl") == 0
    assert "pictures" not in capsys.readouterr().err
    page = Path("report/index.html").read_text()
    assert "what colour is it?" in page
    assert "data:image/png;base64," in page
    assert run("r.jsonl", "p.jsonl", "-o", "report", "--force") == 0
    err = capsys.readouterr().err
    assert err.count("the page has no pictures of a: tell where they are with --task") == 1
    assert "data:image/png;base64," not in Path("report/index.html").read_text()
    assert run("r.jsonl", "p.jsonl", "-o", "other", "--task", "absent") == 2


@pytest.mark.parametrize(("count", "told"), [(1, "1 result of"), (2, "2 results of")])
def test_what_is_left_out_is_counted(count: int, told: str, capsys: Capture) -> None:
    append_results(Path("r.jsonl"), [replace(result, split="val") for result in TWO[:count]])
    assert run("r.jsonl", "-o", "report") == 0
    assert f"left out: {told} other splits" in capsys.readouterr().err
    assert "holds, on 0 of 1 matrix" in Path("report/report.md").read_text()
    assert "holds, on 0 of 1 matrix" in Path("report/index.html").read_text()


def test_a_taken_folder_and_a_broken_file_are_refused(capsys: Capture) -> None:
    Path("report").mkdir()
    assert run("r.jsonl", "-o", "report") == 1
    assert "already exists" in capsys.readouterr().err
    Path("bad.jsonl").write_text("[1]\n")
    assert run("r.jsonl", "bad.jsonl", "-o", "new") == 1
    assert "bad.jsonl line 1" in capsys.readouterr().err
    assert run("absent.jsonl", "-o", "new") == 2
    assert not Path("new").exists()


HOSTILE = ("_[/]", "=1+1|[bold]a[/bold]", "$\\frac{$ :smile:", "a\n# b\x1b[31m", "<b>評価", "../c", "@`x`")
"""Markup of rich, HTML and Markdown, formulas of TeX and spreadsheets, what a terminal obeys."""


def test_names_are_nothing_but_names_wherever_they_are_shown(capsys: Capture) -> None:
    states = [("base", 0), ("trained", 1), ("trained", 2)]
    sequences = [
        Result(task, stage, HOSTILE[:t], "exact", 10.0 * t, 4, method=name, seed=0, order=name)  # type: ignore[arg-type]
        for name in HOSTILE
        for stage, t in states
        for task in HOSTILE[:2]
    ]
    append_results(Path("h.jsonl"), sequences)
    assert run("h.jsonl", "-o", "out") == 0
    told = capsys.readouterr().err
    assert all(name in told for name in HOSTILE if name.isprintable())
    assert "a # b\\x1b[31m" in told
    text = Path("out/report.md").read_text()
    assert "<" not in text
    assert "# b\\x1b" in text
    assert "\n# b" not in text
    with Path("out/matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {f"'{name}" if name[0] in "=@" else name for name in HOSTILE}
    drawn = [ElementTree.parse(file) for file in Path("out").glob("*.svg")]
    assert len(drawn) == 4
