"""OK-VQA as it is released: the layout of VQA with fields of knowledge, its pictures in zip archives."""

from pathlib import Path

import pytest

from pamctl.tasks import open_task
from tests.tasks.release_cases import RELEASES, copied, edit_json, faults, near, pixels, score, texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("okvqa", tmp_path)


def test_questions_have_ten_answers_and_a_field_of_knowledge() -> None:
    task = open_task(RELEASES / "okvqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 4, "val": 4, "test": 4}
    assert texts(task.split("train"))[3] == (
        "4803",
        "answer en What food is it from?",
        (*["crème brûlée"] * 4, *["flan"] * 6),
    )
    assert [example.type for example in task.split("test")] == [
        "sports and recreation",
        "plants and animals",
        "weather and climate",
        "other",
    ]
    seeds = (297147, 339761, 339761, 9)
    assert all(near(pixels(example), seed) for example, seed in zip(task.split("val"), seeds, strict=True))
    assert (task.recipe.epochs, task.recipe.batch_size, task.text_length) == (10, 128, 32)


def test_a_third_for_each_person_who_said_so() -> None:
    task = open_task(RELEASES / "okvqa")
    sport, _, season, _ = task.split("test")
    assert score(task, "race", sport) == 1
    assert score(task, "ride", sport) == pytest.approx(2 / 3)
    assert score(task, "fall", season) == pytest.approx(2 / 3)
    assert score(task, "spring", season) == 0


def test_another_answer_is_trained_on_at_each_visit() -> None:
    task = open_task(RELEASES / "okvqa")
    hair = task.split("train")[0]
    visits = [task.visit(hair, 0, epoch).suffix for epoch in range(10)]
    assert sorted(visits) == ["braid"] * 4 + ["pony tail"] * 6
    assert visits != sorted(visits)


def test_the_files_of_the_first_vqa_are_refused(folder: Path) -> None:
    edit_json(
        folder / "mscoco_val2014_annotations.json",
        lambda content: content["annotations"][2].update(question_type="what is"),
    )
    (told,) = faults(folder, "val")
    assert told.startswith("mscoco_val2014_annotations.json line ")
    assert told.endswith(" (2) has 'what is' as `question_type`, which OK-VQA does not have")


def test_an_answer_to_a_question_that_is_not_there_is_named(folder: Path) -> None:
    edit_json(folder / "OpenEnded_mscoco_val2014_questions.json", lambda content: content["questions"].pop(0))
    (told,) = faults(folder, "val")
    assert told.endswith(
        " (0) answers question 2971470, which OpenEnded_mscoco_val2014_questions.json does not have"
    )
