"""README's "add your own": one file and one row are a method that trains, merges and is in the grid."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pamctl.sequences.grid import cells_of, units_of
from pamctl.sequences.sequence_file import sequence_of
from pamctl.training import methods, terms, train_task
from pamctl.training.metrics_log import FILE_NAME
from tests.training_cases import SETTINGS, write_base, write_task

README = (Path(__file__).parents[2] / "README.md").read_text()
FILE, ROW = re.findall(r"```py\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of README's method, its file and its row in place."""
    (tmp_path / "shrink.py").write_text(FILE)
    monkeypatch.setattr(terms, "__path__", [*terms.__path__, str(tmp_path)])
    row = eval(ROW, vars(methods))
    monkeypatch.setitem(methods.METHODS, row.name, row)
    return str(row.name)


def test_readme_s_method_takes_fewer_than_thirty_lines() -> None:
    assert len((FILE + ROW).splitlines()) < 30


def test_readme_s_method_trains_with_its_term(added: str, tmp_path: Path) -> None:
    base, task = str(write_base(tmp_path / "base")), write_task(tmp_path)
    settings: dict[str, Any] = {**SETTINGS, "steps": 2, "base": base}
    first = train_task(task, tmp_path / "first", **settings)
    second = train_task(task, tmp_path / "second", method=added, global_adapter=first, **settings)
    _, *events = map(json.loads, (second / FILE_NAME).read_text().splitlines())
    assert all(0 < event["terms"]["shrink"] < event["loss"] for event in events if event["event"] == "step")
    record = json.loads((second / "pamctl.json").read_text())
    assert record["method"] == added
    assert record["parameters"]["terms"] == [{"term": "shrink", "weight": 0.001}]


def test_readme_s_method_is_a_cell_of_a_grid(added: str) -> None:
    table = {"tasks": ["tiny-gqa", "tiny-textvqa"], "methods": [added]}
    *_, unit = units_of(file := sequence_of(table, "here"), cells_of(file))
    assert [type(step).__name__ for step in unit.steps][:5] == ["Train", "Score", "Prune", "Score", "Merge"]
