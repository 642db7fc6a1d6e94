"""Checking a task finds every fault, not only the first."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pamctl.refusal import UsageRefusal
from pamctl.tasks import check, image_check
from pamctl.tasks.check import TaskCheck, check_task
from tests.tasks.release_cases import copied, with_toml


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


def checked(folder: Path, told: str) -> TaskCheck:
    """What is found in VQAv2's miniature with a TOML."""
    return check_task(str(with_toml(folder, f'reader = "vqav2"\n{told}')))


def test_a_release_is_read_once_and_held_against_its_size(tmp_path: Path) -> None:
    found = check_task(str(copied("vqav2", tmp_path)))
    assert list(found.splits) == ["train", "val and test"]
    assert found.errors == []
    train = found.splits["train"]
    assert sum(found.types["train"].values()) == train
    assert any(f"train has {train} examples, the release has 443757" in told for told in found.warnings)
    assert found.images["decoded"] == found.images["distinct"] > 0
    assert found.base == "tiny-paligemma"


def test_faults_of_a_release_are_counted_and_the_first_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ERRORS_NAMED", 2)
    folder = copied("vqav2", tmp_path)
    (folder / "train2014.zip").unlink()
    (folder / "v2_mscoco_val2014_annotations.json").unlink()
    found = check_task(str(folder))
    assert found.splits == {"train": 0, "val and test": 0}
    assert len(found.errors) == 2
    assert found.more_errors >= 1
    assert "line" in found.errors[0]
    assert list(found.lines())[-1] == f"{2 + found.more_errors} errors"


def test_a_missing_side_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    folder = copied("vqav2", tmp_path)
    (folder / "v2_mscoco_val2014_annotations.json").unlink()
    found = check_task(str(folder))
    (error,) = found.errors
    assert error.endswith("has no v2_mscoco_val2014_annotations.json")
    assert found.hints == ["put it there as it was released, or name its folder as `data`"]
    assert f"hint: {found.hints[0]}" in list(found.lines())


def test_examples_that_are_left_out_are_counted(tmp_path: Path) -> None:
    folder = copied("vqav2", tmp_path)
    whole = check_task(str(folder)).splits["train"]
    found = checked(folder, 'images = "val2014.zip"\nmissing = "skip"\n')
    assert found.splits["train"] == 0
    assert f"{whole} examples are left out, because their image is missing" in found.warnings


def test_texts_that_are_cut_are_an_error_where_they_would_be_refused(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"image": "a.png", "question": "many words " * 60, "answer": "a"})
    )
    told = "1 examples are cut by the text length 128"
    default, named = (check_task(str(tmp_path / "t.jsonl"), base=base) for base in (None, "tiny"))
    assert default.ok
    (warning,) = [warning for warning in default.warnings if warning.startswith(told)]
    assert "--base names" in warning
    assert named.errors[0].startswith(told)
    released = checked(copied("vqav2", tmp_path), "text_length = 5\n")
    assert released.ok
    assert any("are cut by the text length 5" in warning for warning in released.warnings)


def test_text_without_tokens_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"image": "a.png", "question": "an <image> here", "answer": "a"})
    )
    (error,) = check_task(str(tmp_path / "t.jsonl"), base="tiny").errors
    assert "1 examples hold what the tokenizer of tiny-paligemma has no token for" in error


def test_too_few_answers_for_the_metric_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "task.jsonl").write_text('{"image": "a.png", "question": "q", "answers": ["a", "b"]}')
    (tmp_path / "task.toml").write_text('reader = "jsonl"\nmetric = "vqa"\n')
    found = check_task(str(tmp_path))
    assert any("1 examples have fewer than 4 answers" in told for told in found.warnings)
    assert found.splits == {"train and test": 1}
    assert found.ok


def test_what_is_trained_on_alone_may_have_few_answers(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    for split, count in (("train", 1), ("test", 10)):
        row = {"image": "a.png", "question": split, "answers": ["a"] * count}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    (tmp_path / "task.toml").write_text(
        'reader = "jsonl"\nmetric = "vqa"\n[splits]\ntrain = "train"\ntest = "test"'
    )
    assert check_task(str(tmp_path)).warnings == []


def test_of_very_many_images_a_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_check, "DECODED_AT_MOST", 2)
    folder = copied("vqav2", tmp_path)
    some, every = check_task(str(folder)), check_task(str(folder), every_image=True)
    assert (some.images["decoded"], every.images["decoded"]) == (2, every.images["distinct"])
    assert some.images["distinct"] > 2


def test_a_picture_in_two_splits_with_one_prompt_is_a_leak(tmp_path: Path) -> None:
    found = checked(copied("vqav2", tmp_path), '[splits]\ntrain = "train"\ntest = "train[:2]"\n')
    assert [error.split(":")[0] for error in found.errors] == [
        "2 examples of test have an image and prompt of train"
    ]


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "task.jsonl").symlink_to(tmp_path / "task.jsonl")
    with pytest.raises(UsageRefusal, match=r"task\.jsonl is not a file"):
        check_task(str(tmp_path / "task.jsonl"))


def test_names_of_splits_that_no_command_looks_for_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    row = {"image": "a.png", "answer": "a"}
    rows = [row | {"question": "q", "split": "training"}, row | {"question": "r", "split": "TEST"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = check_task(str(tmp_path / "t.jsonl"))
    assert found.ok
    assert found.warnings == [
        "no split is called train: is it training?",
        "no split is called test: is it TEST?",
    ]
