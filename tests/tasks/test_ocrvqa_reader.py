"""OCR-VQA as it is released: books with several questions each, covers named after them."""

from pathlib import Path

import pytest

from pamctl.tasks import open_task
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    drawn,
    edit_json,
    faults,
    near,
    pixels,
    score,
    texts,
    with_toml,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("ocrvqa", tmp_path)


def test_each_question_of_a_book_is_an_example_and_gif_covers_are_left_out() -> None:
    task = open_task(RELEASES / "ocrvqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 8, "val": 7, "test": 8}
    assert texts(task.split("train"))[4:] == [
        ("0007179294/0", "answer en Who wrote this book?", ("J. Müller",)),
        ("0007179294/1", "answer en What is the title of this book?", ("Größe & Maß: Ein Führer",)),
        ("0007179294/2", "answer en What type of book is this?", ("Travel",)),
        ("0007179294/3", "answer en Is this book related to Travel?", ("Yes",)),
    ]
    assert {example.type for example in task.split("train")} == {None}


def test_the_ending_of_the_cover_is_that_of_its_address() -> None:
    train = open_task(RELEASES / "ocrvqa").split("train")
    assert near(pixels(train[0]), 0)
    assert (pixels(train[4]) == drawn(1)).all()


def test_an_answer_is_right_in_any_case() -> None:
    task = open_task(RELEASES / "ocrvqa")
    title = task.split("test")[1]
    assert score(task, "the calendar 2012", title) == 1
    assert score(task, "The Calendar", title) == 0
    assert (task.text_length, task.recipe.epochs, task.recipe.batch_size) == (32, 3, 128)


def test_coin_scores_it_otherwise(folder: Path) -> None:
    task = open_task(with_toml(folder, 'reader = "ocrvqa"\nscoring = "coin"\n'))
    assert score(task, "Unanswerable", task.split("test")[0]) == 0
    assert task.metric == "coin-ocrvqa"


def test_books_whose_cover_is_gone_are_refused_or_left_out(folder: Path) -> None:
    (folder / "images" / "0061234567.jpg").unlink()
    (fault,) = faults(folder, "test")
    assert fault.startswith("dataset.json line 1 (0061234567): image images/0061234567.jpg is not in ")
    task = open_task(with_toml(folder, 'reader = "ocrvqa"\nmissing = "skip"\n'))
    assert {example.id.split("/")[0] for example in task.split("test")} == {"0062345678"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": 4}, "has 4 as `split`, not 1, 2 or 3"),
        ({"answers": ["Ann"]}, "has 4 questions and 1 answers"),
        ({"answers": ["Ann", "", "c", "d"]}, "has no answer"),
        ({"imageURL": "http://ecx.images/cover"}, "has no file of a picture as `imageURL`"),
        ({"imageURL": None}, "has null as `imageURL`, not a text"),
        ({"questions": [1, 2]}, "has a list as `questions`, not a list of texts"),
    ],
)
def test_a_field_of_another_kind_is_named_by_book(folder: Path, change: dict[str, object], told: str) -> None:
    edit_json(folder / "dataset.json", lambda books: books["0062345678"].update(change))
    (fault,) = faults(folder, "test")
    assert fault.split(" (", 1)[1] == f"0062345678) {told}"


def test_another_dataset_json_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"a": {"imageURL": "x.jpg", "caption": "y"}}')
    with pytest.raises(Exception, match="no release that is known"):
        open_task(tmp_path)
