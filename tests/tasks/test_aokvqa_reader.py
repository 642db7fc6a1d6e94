"""A-OKVQA as it is released: four options in the prompt, the right one is answered."""

from pathlib import Path

import pytest

from pamctl.tasks import open_task
from tests.tasks.release_cases import RELEASES, copied, edit_json, faults, near, pixels, score, texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("aokvqa", tmp_path)


def test_options_stand_in_the_prompt_and_the_right_one_is_the_answer() -> None:
    task = open_task(RELEASES / "aokvqa")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 4, "val": 4, "test": 4}
    assert texts(task.split("train"))[1] == (
        "train-1-x9Zq",
        "answer en  Where is he from? choose from: New York \t Paris \t Köln \t Rome",
        ("Köln",),
    )
    assert [example.answers for example in task.split("test")] == [("cig",), ("Thirty",), ("soap",), ("c",)]
    assert [
        near(pixels(example), seed)
        for example, seed in zip(task.split("train"), (299207,) * 2 + (95725, 8), strict=True)
    ] == [True] * 4
    assert "its val is scored as test" in task.notes[0]
    assert (task.recipe.epochs, task.recipe.batch_size, task.text_length) == (15, 128, 128)


def test_the_case_of_an_option_is_kept() -> None:
    task = open_task(RELEASES / "aokvqa")
    birthday = task.split("val")[1]
    assert score(task, "Thirty", birthday) == 1
    assert score(task, "thirty", birthday) == 0


def test_what_is_at_fault_is_named_by_file_line_and_place(folder: Path) -> None:
    def change(records: list[dict[str, object]]) -> None:
        records[0]["correct_choice_idx"] = 4
        records[1]["choices"] = {"0": "a"}
        records[2]["image_id"] = "7"
        del records[3]["correct_choice_idx"]

    edit_json(folder / "aokvqa_v1p0_train.json", change)
    assert [fault.partition(" (")[2] for fault in faults(folder, "train")] == [
        "0) has 4 as `correct_choice_idx`, and 4 options counted from 0",
        "1) has an object as `choices`, not a list of texts",
        "2) has a text as `image_id`, not a whole number",
        "3) has no `correct_choice_idx`",
    ]
    assert faults(folder, "train")[1].startswith("aokvqa_v1p0_train.json line ")
    assert faults(folder, "val") == []
