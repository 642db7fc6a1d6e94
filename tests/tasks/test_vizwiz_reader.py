"""VizWiz as it is released: ten answers each, empty ones left out, pictures in a zip archive a split."""

import shutil
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
    texts,
    with_toml,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("vizwiz", tmp_path)


def test_examples_are_named_after_their_pictures() -> None:
    task = open_task(RELEASES / "vizwiz")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 5, "val": 4, "test": 4}
    assert texts(task.split("val"))[1] == (
        "VizWiz_val_00000001.jpg",
        "answer en I think there were supposed to be some dials here: 50°?",
        ("dials", "dials", *["knobs"] * 8),
    )
    assert [example.type for example in task.split("train")] == [
        "other",
        "unanswerable",
        "other",
        "yes/no",
        "number",
    ]
    assert all(near(pixels(example), seed) for seed, example in enumerate(task.split("val")))


def test_empty_answers_are_left_out() -> None:
    assert open_task(RELEASES / "vizwiz").split("train")[2].answers == ("tomatoes",) * 9


def test_a_third_for_each_person_who_said_so_and_raw_texts_are_compared() -> None:
    task = open_task(RELEASES / "vizwiz")
    basil = task.split("train")[0]
    assert score(task, "basil leaves", basil) == 1
    assert score(task, "Basil Leaves", basil) == pytest.approx(1 / 3)
    assert score(task, "parsley", basil) == 0
    assert (task.text_length, task.recipe.epochs, task.recipe.batch_size) == (48, 10, 256)


def test_another_answer_is_trained_on_at_each_visit() -> None:
    task = open_task(RELEASES / "vizwiz")
    milk = task.split("train")[3]
    for turn in range(3):
        visits = [task.visit(milk, 0, epoch) for epoch in range(10 * turn, 10 * turn + 10)]
        assert sorted(visit.suffix for visit in visits) == ["no"] * 3 + ["yes"] * 7
        assert {visit.prefix for visit in visits} == {"answer en Is this milk?"}


def test_files_may_lie_beside_unpacked_pictures(folder: Path) -> None:
    shutil.move(folder / "Annotations" / "val.json", folder / "val.json")
    shutil.rmtree(folder / "Annotations")
    shutil.unpack_archive(folder / "val.zip", folder)
    (folder / "val.zip").unlink()
    assert near(pixels(open_task(folder).split("test")[3]), 3)


def test_an_example_without_any_answer_is_at_fault(folder: Path) -> None:
    def change(records: list[dict[str, object]]) -> None:
        records[1]["answers"] = [{"answer": "", "answer_confidence": "no"}]
        records[2]["answers"] = [{"answer": None}]
        records[3]["answers"] = ["3"] * 10

    edit_json(folder / "Annotations" / "val.json", change)
    first, second = faults(folder, "val")
    assert first.endswith(" (1) has no answer")
    assert second.endswith(" (2) has a list as `answers`, not a list of objects with `answer`")


@pytest.mark.parametrize("content", ["[]", "{}", '[{"image": "a.jpg", "question": "?"}]', '["a"]', "[{"])
def test_another_train_json_is_not_taken_for_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(Exception, match="no release that is known"):
        open_task(tmp_path)


def test_coin_scores_one_answer(folder: Path) -> None:
    task = open_task(with_toml(folder, 'reader = "vizwiz"\nscoring = "coin"\n'))
    assert score(task, "YES", task.split("train")[3]) == 1
    assert task.metric == "coin-vqa"
