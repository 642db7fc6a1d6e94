"""Where the tasks of a sequence are looked for."""

from pathlib import Path

import pytest

from pamctl.refusal import UsageRefusal
from pamctl.sequences.sequence_file import read_sequence, sequence_of
from pamctl.sequences.task_places import located


def test_tasks_start_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "gqa").mkdir(parents=True)
    (tmp_path / "here" / "sqa").mkdir()
    table = {"orders": {"a": ["gqa", "sqa"]}, "data": "$PLACE", "methods": ["pam"]}
    file = sequence_of(table, "mine.toml", tmp_path)
    with pytest.raises(UsageRefusal, match="PLACE is not set"):
        located(file)
    monkeypatch.setenv("PLACE", "here")
    assert located(file) == {name: str(tmp_path / "here" / name) for name in ("gqa", "sqa")}
    with pytest.raises(UsageRefusal, match=f"task gqa is not at {tmp_path}/there/gqa"):
        located(file, str(tmp_path / "there"))
    with pytest.raises(UsageRefusal, match="coin-1 does not tell where its tasks are"):
        located(read_sequence("coin-1"))


def test_other_capitals_and_the_endings_of_a_tasks_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "ScienceQA").mkdir()
    for name in ("gqa.toml", "VQAv2.jsonl"):
        (tmp_path / name).touch()
    file = sequence_of({"orders": {"a": ["scienceqa", "gqa", "vqav2"]}, "methods": ["pam"]}, "mine.toml")
    assert located(file, str(tmp_path)) == {
        "scienceqa": str(tmp_path / "ScienceQA"),
        "gqa": str(tmp_path / "gqa.toml"),
        "vqav2": str(tmp_path / "VQAv2.jsonl"),
    }
    (tmp_path / "SCIENCEQA").mkdir()
    with pytest.raises(UsageRefusal, match="task scienceqa is not at"):
        located(file, str(tmp_path))
