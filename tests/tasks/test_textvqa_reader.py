"""TextVQA as it is released: ten answers each, and pictures that Open Images' table puts upright."""

from pathlib import Path

import numpy as np
import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    edit_json,
    faults,
    near,
    pixels,
    score,
    texts,
    with_toml,
)

TABLE = "train_images/rotation.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("textvqa", tmp_path)


def test_questions_and_their_ten_answers() -> None:
    task = open_task(RELEASES / "textvqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 5, "val": 4, "test": 4}
    assert texts(task.split("train"))[2] == (
        "2",
        "answer en what is on the sign?",
        (*["café"] * 6, *["cafe"] * 4),
    )
    assert texts(task.split("test"))[0][0] == "34602"
    assert "its val is scored as test" in task.notes[0]


def test_soft_accuracy() -> None:
    task = open_task(RELEASES / "textvqa")
    year = task.split("test")[1]
    assert score(task, "98", year) == 1
    assert score(task, "1998", year) == pytest.approx(0.9)
    assert score(task, "2000", year) == 0
    assert (task.text_length, task.recipe.epochs, task.recipe.batch_size) == (32, 5, 256)


def test_pictures_that_lie_on_their_side_are_turned() -> None:
    phone, label, sign, copyrighted, number = open_task(RELEASES / "textvqa").split("train")
    assert near(pixels(phone), 0)
    assert near(np.rot90(pixels(label), -1), 1)
    assert label.load_images == sign.load_images
    assert near(np.rot90(pixels(copyrighted), -3), 2)
    assert near(pixels(number), 3)


def test_without_the_table_they_are_as_they_are(folder: Path) -> None:
    (folder / TABLE).unlink()
    assert near(pixels(open_task(folder).split("train")[1]), 1)


def test_the_table_may_have_another_name(folder: Path) -> None:
    (folder / TABLE).rename(folder / "turned.csv")
    task = open_task(with_toml(folder, 'reader = "textvqa"\nrotation = "turned.csv"\n'))
    assert pixels(task.split("train")[1]).shape == (16, 12, 3)


@pytest.mark.parametrize("named", ['"gone.csv"', "3"])
def test_a_table_that_is_not_there_is_refused(folder: Path, named: str) -> None:
    task = open_task(with_toml(folder, f'reader = "textvqa"\nrotation = {named}\n'))
    with pytest.raises(UsageRefusal, match=r"has no file .*, which the TOML gives as `rotation`"):
        task.split("train")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"ImageID,Rotation\na,45\n", "line 2 cannot be read: a rotation of 45 degrees"),
        (b"ImageID,Rotation\r\na,0.0\r\nb,left\r\n", "line 3 cannot be read: could not convert"),
        (b"ImageID,Rotation\na\n", "line 2 cannot be read: list index out of range"),
        (b"ImageID,Turn\na,90\n", "line 1 cannot be read: 'Rotation' is not in list"),
        (b"", "line 0 cannot be read: 'ImageID' is not in list"),
        (b"ImageID,Rotation\n\xff,90\n", "cannot be read: 'utf-8' codec"),
    ],
)
def test_another_table_is_named_by_line(folder: Path, table: bytes, told: str) -> None:
    (folder / TABLE).write_bytes(table)
    with pytest.raises(Refusal) as refusal:
        open_task(folder).split("train")
    assert refusal.value.what.startswith(f"{folder / TABLE} line ")
    assert told in refusal.value.what


def test_a_table_with_crlf_and_a_turn_of_a_full_circle(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"\xef\xbb\xbfImageID,Rotation\r\n0054c91397f2fe05,360\r\n")
    assert near(pixels(open_task(folder).split("train")[0]), 0)


def test_a_field_of_another_kind_is_named(folder: Path) -> None:
    def change(content: dict[str, list[dict[str, object]]]) -> None:
        content["data"][0]["answers"] = "nokia"
        content["data"][2]["question_id"] = None

    edit_json(folder / "TextVQA_0.5.1_train.json", change)
    first, second = faults(folder, "train")
    assert first.endswith(" (0) has a text as `answers`, not a list of texts")
    assert second.endswith(" (2) has null as `question_id`, not a name or number")


def test_the_test_split_has_no_answers(folder: Path) -> None:
    said = 'reader = "textvqa"\n[splits]\ntest = "test"\n'
    with pytest.raises(UsageRefusal, match="'test' is no split of the release"):
        open_task(with_toml(folder, said))
