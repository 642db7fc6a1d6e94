"""Checking a task finds every fault, not only the first."""

import json
from pathlib import Path

from PIL import Image

from pamctl.tasks.check import check_task


def test_every_fault_is_told_and_leaks_are_errors(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "copy-of-a.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    row = {"image": "a.png", "question": "q", "answer": "a"}
    train = [row | {"id": "x"}, row | {"image": "bad.png"}, {"image": "a.png"}, row | {"id": "x"}]
    test = [row | {"id": "x", "image": "copy-of-a.png"}, row | {"question": "another"}]
    for split, rows in (("train", train), ("test", test)):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told: list[int] = []
    found = check_task(str(tmp_path), told.append)
    assert found.splits == {"train": 2, "test": 2}
    assert told == [1, 2, 3, 4]
    faults = (
        "line 3 has no `question`",
        "line 4: id 'x' is on line 1 too",
        "line 2 (id 2)",
        "1 examples of test",
    )
    assert [any(fault in error for error in found.errors) for fault in faults] == [True] * 4
    assert len(found.errors) == 4
    assert found.warnings == ["1 ids are in train and in test: x"]


def test_a_file_without_splits_is_sound_with_a_warning(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "question": "q", "answer": "a"}')
    found = check_task(str(tmp_path / "t.jsonl"))
    assert found.errors == []
    assert "same examples" in found.warnings[0]
