"""RSVQA as it is released: every split's files hold all questions, and numbers are asked for on demand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.splits import ReadSplits
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    drawn,
    edit_json,
    faults,
    pixels,
    score,
    texts,
    with_toml,
)

QUESTIONS, ANSWERS = "LR_split_val_questions.json", "LR_split_val_answers.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("rsvqa", tmp_path)


def test_only_active_questions_whose_answer_is_no_number_are_read() -> None:
    task = open_task(RELEASES / "rsvqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 6, "val": 3, "test": 6}
    assert texts(task.split("val")) == [
        ("8", "answer en Are there more commercial buildings than roads?", ("no",)),
        ("9", "answer en Is it a rural or an urban area", ("rural",)),
        ("11", "answer en Is a water area present?", ("yes",)),
    ]
    assert [example.type for example in task.split("val")] == ["comp", "rural_urban", "presence"]
    for split, seeds in (("train", (0, 0, 0, 1, 1, 1)), ("val", (2, 2, 2))):
        for example, seed in zip(task.split(split), seeds, strict=True):
            assert np.array_equal(pixels(example), drawn(seed))
    assert score(task, "Rural", task.split("val")[1]) == 1
    assert score(task, "urban", task.split("val")[1]) == 0
    assert (task.recipe.epochs, task.recipe.batch_size, task.recipe.label_smoothing) == (3, 256, 0.2)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("0", "0"),
        ("1", "between 1 and 10"),
        ("10", "between 1 and 10"),
        ("11", "between 11 and 100"),
        ("100", "between 11 and 100"),
        (101, "between 101 and 1000"),
        ("1000", "between 101 and 1000"),
        ("1001", "more than 1000"),
    ],
)
def test_a_number_is_answered_by_its_range(folder: Path, number: object, answer: str) -> None:
    edit_json(folder / ANSWERS, lambda content: content["answers"][10].update(answer=number))
    task = open_task(with_toml(folder, 'reader = "rsvqa"\nnumeric = true\n'))
    examples = task.split("val")
    assert [example.type for example in examples] == ["comp", "rural_urban", "count", "presence"]
    assert examples[2].answers == (answer,)
    assert [len(task.split(split)) for split in ("train", "test")] == [8, 8]


@pytest.mark.parametrize("answer", ["many", "-1", "9" * 19])
def test_what_is_no_number_is_at_fault_where_numbers_are_asked_for(folder: Path, answer: str) -> None:
    edit_json(folder / ANSWERS, lambda content: content["answers"][10].update(answer=answer))
    assert faults(folder, "val") == []
    with_toml(folder, 'reader = "rsvqa"\nnumeric = true\n')
    (told,) = faults(folder, "val")
    assert told.startswith(f"{QUESTIONS} line ")
    assert told.endswith(f" (10) asks how many, and is answered {answer!r}")


def test_numeric_is_true_or_false_and_changes_what_is_told_of_the_task(folder: Path) -> None:
    notes, sizes = [], []
    for numeric in ("false", "true"):
        task = open_task(with_toml(folder, f'reader = "rsvqa"\nnumeric = {numeric}\n'))
        assert isinstance(task.splits, ReadSplits)
        notes.append(task.notes[0])
        sizes.append([task.splits.released_size(split) for split in ("train", "val", "test")])
    assert sizes == [[39_441, 6_782, 6_782], [57_223, 10_005, 10_004]]
    assert ("numeric = true" in notes[0], "range" in notes[1]) == (True, True)
    with pytest.raises(UsageRefusal, match="numeric is 'yes'"):
        open_task(with_toml(folder, 'reader = "rsvqa"\nnumeric = "yes"\n'))


def test_what_is_at_fault_is_named_by_file_line_and_place(folder: Path) -> None:
    edit_json(folder / ANSWERS, lambda content: content["answers"][9].update(answer=["Rural"]))
    edit_json(folder / QUESTIONS, lambda content: content["questions"][8].update(type=3))
    edit_json(folder / QUESTIONS, lambda content: content["questions"][11].update(img_id=99))
    edit_json(folder / QUESTIONS, lambda content: content["questions"].append("?"))
    answer, kind, unanswered, image, text = faults(folder, "val")
    assert answer.startswith(f"{ANSWERS} line ")
    assert answer.endswith(" (9) has a list as `answer`, not a name or number")
    assert kind.startswith(f"{QUESTIONS} line ")
    assert kind.endswith(" (8) has a number as `type`, not a text")
    assert unanswered.endswith(" (9) has no answer in the split's file of answers")
    assert image.endswith(
        f" (11): image Images_LR/99.tif is not in {folder}/Images_LR.zip".replace(f"{folder}/", "")
    )
    assert text.endswith(" (20) is a text, not an object")


def test_a_file_that_is_cut_off_is_named(folder: Path) -> None:
    file = folder / ANSWERS
    file.write_bytes(json.dumps(json.loads(file.read_bytes()), indent=1).replace("\n", "\r\n").encode())
    before = texts(open_task(folder).split("val"))
    assert before[1][2] == ("rural",)
    lines = file.read_bytes().split(b"\r\n")
    file.write_bytes(b"\r\n".join(lines[:-5]))
    with pytest.raises(Refusal) as refusal:
        open_task(folder).split("val")
    assert refusal.value.what == f"{file} line {len(lines) - 5} is not JSON: it is cut off"


def test_a_missing_file_of_answers_is_named(folder: Path) -> None:
    (folder / ANSWERS).unlink()
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("val")
    assert refusal.value.what == f"{folder} has no {ANSWERS}"


def test_pictures_may_be_unpacked(folder: Path) -> None:
    shutil.unpack_archive(folder / "Images_LR.zip", folder)
    (folder / "Images_LR.zip").unlink()
    assert np.array_equal(pixels(open_task(folder).split("test")[5]), drawn(4))
