"""What any release may have wrong with its files, for the readers of pictures: named by file and line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from tests.tasks.release_cases import RELEASES, copied, edit_json, faults, texts, with_toml

FILES = {
    "scienceqa": "problems.json",
    "textvqa": "TextVQA_0.5.1_val.json",
    "gqa": "val_balanced_questions.json",
    "vizwiz": "Annotations/val.json",
    "vqav2": "v2_mscoco_val2014_annotations.json",
    "ocrvqa": "dataset.json",
    "aokvqa": "aokvqa_v1p0_val.json",
    "okvqa": "mscoco_val2014_annotations.json",
}
IMAGES = {
    "scienceqa": "images",
    "textvqa": "train_images",
    "gqa": "images.zip",
    "vizwiz": "val.zip",
    "vqav2": "val2014.zip",
    "ocrvqa": "images",
    "aokvqa": "val2017",
    "okvqa": "val2014.zip",
}


def one_of(name: str, content: Any) -> tuple[Any, Any]:
    """What holds the records of a file, and where one of the val split is in it."""
    if name in ("scienceqa", "ocrvqa"):
        return content, next(key for key, record in content.items() if record["split"] in ("val", 2))
    if name == "gqa":
        return content, "05451384"
    member = {"vqav2": "annotations", "okvqa": "annotations", "textvqa": "data"}.get(name)
    return content[member] if member else content, -1


for_each = pytest.mark.parametrize("name", FILES)


@for_each
def test_byte_order_mark_crlf_and_characters_that_are_not_escaped_change_nothing(
    name: str, tmp_path: Path
) -> None:
    file = copied(name, tmp_path) / FILES[name]
    content = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(content, indent=2, ensure_ascii=False).replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    as_released = open_task(RELEASES / name).split("val")
    assert texts(open_task(tmp_path / name).split("val")) == texts(as_released)


@for_each
def test_a_file_that_is_cut_off_is_named_by_line(name: str, tmp_path: Path) -> None:
    file = copied(name, tmp_path) / FILES[name]
    edit_json(file, lambda content: None)
    lines = file.read_text().split("\n")
    file.write_text("\n".join(lines[:-6]))
    with pytest.raises(Refusal) as refusal:
        open_task(tmp_path / name).split("val")
    assert refusal.value.what.startswith(f"{file} line ")
    assert refusal.value.what.endswith(" is not JSON: it is cut off")


@for_each
def test_a_file_that_is_not_utf_8_is_named(name: str, tmp_path: Path) -> None:
    file = copied(name, tmp_path) / FILES[name]
    file.write_bytes(file.read_bytes().replace(b"question", b"qu\xffestion"))
    with_toml(tmp_path / name, f'reader = "{name}"\n')
    with pytest.raises(Refusal, match="is not UTF-8 near line 1"):
        open_task(tmp_path / name).split("val")


@for_each
def test_images_that_are_nowhere_are_named_with_their_record(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    images = folder / IMAGES[name]
    images.unlink() if images.is_file() else shutil.rmtree(images)
    told = faults(folder, "val")
    assert told
    assert all(fault.startswith(f"{FILES[name]} line ") and ": image " in fault for fault in told)
    skipping = open_task(with_toml(folder, f'reader = "{name}"\nmissing = "skip"\n'))
    with pytest.raises(UsageRefusal, match="is empty"):
        skipping.split("val")
    assert "examples without their image are left out" in skipping.notes[-1]


@for_each
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    (folder / FILES[name]).unlink()
    with_toml(folder, f'reader = "{name}"\n')
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("val")
    assert refusal.value.what == f"{folder} has no {Path(FILES[name]).name}"


@for_each
def test_a_record_that_is_no_object_is_told_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    before = len(open_task(folder).split("val"))

    def spoil(content: Any) -> None:
        records, key = one_of(name, content)
        records[key] = 5

    edit_json(folder / FILES[name], spoil)
    with_toml(folder, f'reader = "{name}"\n')
    told = faults(folder, "val")
    assert "is a number, not an object" in told[0]
    task = open_task(folder)
    read = [row for row in task.splits.rows("val") if not isinstance(row, Refusal)]  # type: ignore[attr-defined]
    assert 0 < len(read) < before
