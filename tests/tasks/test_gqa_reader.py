"""GQA as it is released: questions by their id, pictures in one zip archive, one answer each."""

from pathlib import Path

import pytest

from pamctl.tasks import open_task
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    edit_json,
    faults,
    near,
    pixels,
    score,
    script,
    texts,
    with_toml,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("gqa", tmp_path)


def test_the_balanced_questions_of_each_split() -> None:
    task = open_task(RELEASES / "gqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 5, "val": 3, "test": 4}
    assert texts(task.split("train"))[1:3] == [
        ("07333408", "answer en What is on the white wall?", ("pipe",)),
        ("07333405", "answer en Is that pipe red or black?", ("black",)),
    ]
    assert [example.type for example in task.split("test")] == ["verify", "query", "compare", "logical"]
    assert task.split("test")[0].id == "201307251"
    assert "testdev is scored as test" in task.notes[0]


def test_pictures_come_out_of_the_archive_and_questions_share_them() -> None:
    train = open_task(RELEASES / "gqa").split("train")
    assert all(near(pixels(train[place]), seed) for place, seed in enumerate((0, 1, 1, 2, 3)))
    assert train[1].load_images is train[2].load_images


def test_an_answer_is_right_or_wrong() -> None:
    task = open_task(RELEASES / "gqa")
    pipe = task.split("train")[1]
    assert score(task, "pipe", pipe) == 1
    assert score(task, "a pipe", pipe) == 0
    assert (task.text_length, task.recipe.epochs, task.recipe.batch_size) == (32, 1, 256)


@pytest.mark.parametrize("types", [None, [], {}, {"structural": 3}, {"structural": ""}])
def test_a_question_without_a_structure_has_no_type(folder: Path, types: object) -> None:
    file = folder / "val_balanced_questions.json"
    edit_json(file, lambda questions: questions["05451384"].update(types=types))
    assert [example.type for example in open_task(folder).split("val")] == [None, "verify", "query"]


def test_faults_are_named_by_line_and_question(folder: Path) -> None:
    def change(questions: dict[str, dict[str, object]]) -> None:
        questions["05451384"]["answer"] = " "
        questions["05451382"]["imageId"] = True
        questions["201079951"] = []  # type: ignore[assignment]

    edit_json(folder / "val_balanced_questions.json", change)
    told = faults(folder, "val")
    assert [fault.split(") ", 1)[1] for fault in told] == [
        "has no answer",
        "has true or false as `imageId`, not a name or number",
        "is a list, not an object",
    ]
    assert told[0].startswith("val_balanced_questions.json line 2 (05451384) ")


@pytest.mark.parametrize("image", ["../outside", "x/../../outside", "{folder}/outside"])
def test_what_a_question_names_does_not_lead_out_of_the_folder(folder: Path, image: str) -> None:
    (folder / "images.zip").unlink()
    (folder / "images").mkdir()
    script("drawing").write_image(folder / "outside.jpg", 1)
    named = image.replace("{folder}", str(folder))
    edit_json(folder / "val_balanced_questions.json", lambda of: of["05451384"].update(imageId=named))
    with_toml(folder, 'reader = "gqa"\nimages = "images"\ntemplate = "{question}"\n')
    assert len(faults(folder, "val")) == 3
