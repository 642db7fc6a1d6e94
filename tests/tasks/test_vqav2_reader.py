"""VQAv2 as it is released: questions and annotations in two files, COCO's pictures in zip archives."""

import shutil
import zipfile
from pathlib import Path

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
    script,
    texts,
    with_toml,
)

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("vqav2", tmp_path)


def test_questions_and_their_ten_answers() -> None:
    task = open_task(RELEASES / "vqav2")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 4, "val": 4, "test": 4}
    assert texts(task.split("train"))[0] == (
        "9000",
        "answer en What color is the bus?",
        (*["red"] * 8, "maroon", "dark red"),
    )
    assert task.split("train")[3].prefix == "answer en What’s in it?"
    assert [example.type for example in task.split("val")] == ["yes/no", "other", "number", "other"]
    assert "its val is scored as test" in task.notes[0]


def test_pictures_come_out_of_the_archive_of_their_split() -> None:
    task = open_task(RELEASES / "vqav2")
    for split, seeds in (("train", (9, 9, 25, 30)), ("val", (42, 42, 73, 74))):
        assert all(
            near(pixels(example), seed) for seed, example in zip(seeds, task.split(split), strict=True)
        )


def test_soft_accuracy() -> None:
    task = open_task(RELEASES / "vqav2")
    asleep, rack, *_ = task.split("test")
    assert score(task, "no", asleep) == 1
    assert score(task, "yes", asleep) == pytest.approx(0.9)
    assert score(task, "shoe", rack) == pytest.approx(0.6)
    assert score(task, "sandals", rack) == 0
    assert (task.text_length, task.recipe.epochs, task.recipe.weight_decay) == (32, 10, 1e-6)


def test_coin_scores_one_answer_in_capitals(folder: Path) -> None:
    task = open_task(with_toml(folder, 'reader = "vqav2"\nscoring = "coin"\n'))
    assert task.metric == "coin-vqa"
    assert score(task, "Shoe", task.split("test")[1]) == 1


def test_the_splits_of_the_paper_s_transfer(folder: Path) -> None:
    said = 'reader = "vqav2"\n[splits]\ntrain = "train+val[:-2]"\ntest = "val[-2:]"\n'
    task = open_task(with_toml(folder, said))
    assert [example.id for example in task.split("train")] == [
        "9000",
        "9001",
        "25002",
        "30003",
        "42000",
        "42001",
    ]
    assert [example.id for example in task.split("test")] == ["73002", "74003"]


@pytest.mark.parametrize("folders", [["val2014"], []])
def test_pictures_may_be_unpacked_with_or_without_their_folder(folder: Path, folders: list[str]) -> None:
    shutil.unpack_archive(folder / "val2014.zip", folder / "images")
    (folder / "val2014.zip").unlink()
    if not folders:
        for picture in (folder / "images" / "val2014").iterdir():
            picture.rename(folder / "images" / picture.name)
    assert near(pixels(open_task(folder).split("val")[0]), 42)


def test_an_archive_may_hold_the_pictures_without_their_folder(folder: Path) -> None:
    with zipfile.ZipFile(folder / "val2014.zip") as archive:
        flat = {name.split("/")[1]: archive.read(name) for name in archive.namelist()}
    script("drawing").write_zip(folder / "val2014.zip", flat)
    assert near(pixels(open_task(folder).split("val")[2]), 73)


@pytest.mark.parametrize("missing", [QUESTIONS, ANNOTATIONS])
def test_a_file_that_is_missing_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("val")
    assert refusal.value.what == f"{folder} has no {missing}"


def test_faults_of_questions_and_annotations(folder: Path) -> None:
    def questions(content: dict[str, list[dict[str, object]]]) -> None:
        del content["questions"][1]
        content["questions"][1]["image_id"] = "73"

    def annotations(content: dict[str, list[dict[str, object]]]) -> None:
        content["annotations"][0]["answers"] = ["no"] * 10
        content["annotations"][3]["answers"] = []

    edit_json(folder / QUESTIONS, questions)
    edit_json(folder / ANNOTATIONS, annotations)
    told = [fault.split(" line ", 1) for fault in faults(folder, "val")]
    assert [(file, fault.split(") ", 1)[1]) for file, fault in told] == [
        (QUESTIONS, "has a text as `image_id`, not a whole number"),
        (ANNOTATIONS, f"answers question 42001, which {QUESTIONS} does not have"),
        (ANNOTATIONS, f"answers question 73002, which {QUESTIONS} does not have"),
        (ANNOTATIONS, "has no answer"),
    ]


def test_no_question_is_lost_or_asked_otherwise_between_its_two_files(folder: Path) -> None:
    def questions(content: dict[str, list[dict[str, object]]]) -> None:
        content["questions"].append(content["questions"][0] | {"question": "Is it another?"})

    def annotations(content: dict[str, list[dict[str, object]]]) -> None:
        content["annotations"][1] = content["annotations"][0]

    edit_json(folder / QUESTIONS, questions)
    edit_json(folder / ANNOTATIONS, annotations)
    told = faults(folder, "val")
    assert [fault.rpartition(") ")[2] for fault in told[:2]] == [
        "asks question 42000, as a record before it does",
        "answers question 42000, as a record before it does",
    ]
    assert told[2:] == [f"{QUESTIONS}: {ANNOTATIONS} does not answer 1 questions: 42001"]


def test_an_archive_that_is_cut_off_is_refused(folder: Path) -> None:
    archive = folder / "val2014.zip"
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(Refusal, match=r"val2014\.zip cannot be read as a zip archive"):
        open_task(folder).split("val")
