"""Generic JSONL tasks: what is read, and how each fault is named by file and line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.tasks.jsonl import read_rows

ROW = {"image": "a.png", "question": "what ?", "answer": "red"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "a.png")
    return tmp_path


def write(file: Path, *rows: Any) -> Path:
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def test_fields_have_synonyms_and_the_prompt_is_used_word_for_word(folder: Path) -> None:
    file = write(
        folder / "colours.jsonl",
        {"image": "a.png", "question": " What? ", "answer": "Red", "id": "x", "split": "train"},
        {"image": "a.png", "prefix": "answer en", "suffix": "blue", "id": 7, "split": "train", "extra": [1]},
        {"image": "a.png", "question": "q", "answers": ["one", "1"], "split": "test"},
    )
    task = open_task(file)
    train, test = task.split("train"), task.split("test")
    assert task.name == "colours"
    assert task.notes == ()
    assert [(example.id, example.prefix, example.answers) for example in train] == [
        ("x", " What? ", ("Red",)),
        ("7", "answer en", ("blue",)),
    ]
    assert (test[0].id, test[0].answers, test[0].suffix) == ("3", ("one", "1"), "one")
    assert np.array_equal(np.asarray(train[0].load_images()[0]), np.arange(48).reshape(4, 4, 3))


def test_byte_order_mark_crlf_and_blank_lines(folder: Path) -> None:
    text = "\r\n".join([json.dumps(ROW), "", json.dumps(ROW | {"question": "größe\u2028?"})])
    (folder / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    examples = open_task(folder / "t.jsonl").split("test")
    assert [(example.id, example.prefix) for example in examples] == [("1", "what ?"), ("3", "größe\u2028?")]


def test_a_file_without_splits_serves_as_both_and_says_so(folder: Path) -> None:
    task = open_task(write(folder / "t.jsonl", ROW))
    assert list(task.splits) == ["train", "test"]
    assert task.split("train") is task.split("test")
    assert "same examples" in task.notes[0]


def test_a_folder_holds_one_file_or_one_a_split(folder: Path) -> None:
    write(folder / "train.jsonl", ROW, ROW)
    write(folder / "test.jsonl", ROW | {"split": "test"})
    task = open_task(folder)
    assert (task.name, {split: len(rows) for split, rows in task.splits.items()}) == (
        folder.name,
        {"train": 2, "test": 1},
    )
    write(folder / "task.jsonl", ROW)
    with pytest.raises(UsageRefusal, match=r"holds task\.jsonl and train\.jsonl"):
        open_task(folder)
    assert open_task(folder / "task.jsonl").name == folder.name


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["{broken"], "line 1 is not JSON"),
        (["[" * 100_000], "line 1 is not JSON"),
        ([ROW, [1]], "line 2 is a list, not an object"),
        ([{"question": "q", "answer": "a"}], "line 1 has no `image`"),
        ([{"image": "a.png", "answer": "a"}], "line 1 has no `question` or `prefix`"),
        ([{"image": "a.png", "question": "q"}], "line 1 has no `answer` or `suffix` or `answers`"),
        ([ROW | {"prefix": "q"}], "line 1 has both `question` and `prefix`"),
        ([ROW | {"answers": ["a"]}], "line 1 has both `answer` and `answers`"),
        ([ROW | {"answer": 3}], "line 1: `answer` is a number"),
        ([ROW | {"question": None}], "line 1: `question` is null"),
        ([ROW | {"image": ["a.png"]}], "line 1: `image` is a list"),
        ([ROW | {"image": "a\0.png"}], "line 1: `image` is"),
        ([ROW | {"id": True}], "line 1: `id` is true or false"),
        ([ROW | {"split": ""}], "line 1: `split` is an empty text"),
        ([ROW | {"answer": " "}], "line 1: the answer is empty"),
        ([{"image": "a.png", "question": "q", "answers": []}], "line 1: the answer is empty"),
        (
            [{"image": "a.png", "question": "q", "answers": "red"}],
            "line 1: `answers` is not a list of strings",
        ),
        ([{"image": "a.png", "question": "q", "answers": [1]}], "line 1: `answers` is not a list of strings"),
        ([ROW | {"image": "no.png"}], "no.png does not exist"),
        ([ROW | {"image": "."}], "is a folder"),
        ([ROW | {"image": "https://example.org/a.png"}], "image https://example.org/a.png is not on disk"),
        ([{"picture": "a.png", "question": "q", "answer": "a"}], "no `image`, but picture, question, answer"),
        (
            [ROW, '{"image": "a.png" "question": "q"}'],
            "line 2 is not JSON: Expecting ',' delimiter, column 19",
        ),
        ([f"[{json.dumps(ROW)},", f"{json.dumps(ROW)}]"], "t.jsonl is a JSON array"),
        ([ROW | {"image": "x" * 5000}], "x does not exist"),
        ([ROW | {"id": "x"}, ROW | {"id": "x"}], "line 2: id 'x' is on line 1 too"),
        ([ROW | {"split": "train"}, ROW], "line 2: `split` stands on some lines only, unlike line 1"),
        ([ROW | {"question": "a\ud800b"}], "line 1 has a text with half of a character"),
        ([""], "holds no examples"),
    ],
)
def test_a_fault_is_named_by_file_and_line(folder: Path, rows: list[Any], fault: str) -> None:
    file = write(folder / "t.jsonl", *rows)
    with pytest.raises(Refusal) as refused:
        open_task(file)
    assert str(file) in refused.value.what
    assert fault in refused.value.what
    assert refused.value.way_on


def test_a_line_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "t.jsonl").write_bytes(json.dumps(ROW).encode() + b'\n{"image": "\xff"}\n')
    with pytest.raises(Refusal, match="line 2 is not UTF-8"):
        open_task(folder / "t.jsonl")


def test_a_split_file_refuses_lines_of_another_split(folder: Path) -> None:
    write(folder / "train.jsonl", ROW | {"split": "test"})
    with pytest.raises(Refusal, match=r"`split` is 'test' in train\.jsonl"):
        open_task(folder)


@pytest.mark.parametrize("content", [b"not an image", b"\x89PNG\r\n\x1a\n", b""])
def test_a_broken_image_is_named_when_read(folder: Path, content: bytes) -> None:
    (folder / "bad.png").write_bytes(content)
    examples = open_task(write(folder / "t.jsonl", ROW, ROW | {"image": "bad.png", "id": "seven"})).split(
        "test"
    )
    with pytest.raises(Refusal) as refused:
        examples[1].load_images()[0]
    assert "line 2 (id seven)" in refused.value.what
    assert "bad.png cannot be read" in refused.value.what


def test_a_decompression_bomb_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = open_task(write(folder / "t.jsonl", ROW)).split("test")[0]
    for limit in (10, 5):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Refusal, match=f"more than {limit} pixels"):
            example.load_images()[0]


def test_every_8_bit_mode_becomes_rgb_and_deeper_ones_are_refused(folder: Path) -> None:
    for mode in ("L", "1", "P", "RGBA", "CMYK", "LA"):
        name = f"{mode}.tif" if mode == "CMYK" else f"{mode}.png"
        Image.new(mode, (3, 2)).save(folder / name)
        image = open_task(write(folder / "t.jsonl", ROW | {"image": name})).split("test")[0].load_images()[0]
        assert (image.mode, image.size) == ("RGB", (3, 2))
    Image.new("I;16", (3, 2)).save(folder / "deep.png")
    with pytest.raises(Refusal, match="more than 8 bits"):
        open_task(write(folder / "t.jsonl", ROW | {"image": "deep.png"})).split("test")[0].load_images()[0]


def test_an_unknown_name_lists_the_embedded_tasks_and_the_nearest() -> None:
    with pytest.raises(UsageRefusal) as refused:
        open_task("tiny-gqq")
    assert "did you mean tiny-gqa?" in refused.value.way_on
    assert "tiny-scienceqa, tiny-textvqa" in refused.value.way_on
    assert refused.value.exit_code == 2


def test_other_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(UsageRefusal, match=r"is no \.jsonl and no \.toml file"):
        open_task(tmp_path / "t.csv")
    with pytest.raises(UsageRefusal, match=r"holds no task\.toml, no task\.jsonl"):
        open_task(tmp_path)
    assert open_task("tiny-gqa").name == "tiny-gqa"


def test_a_task_whose_name_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff"))
    folder.mkdir()
    Image.new("RGB", (2, 2)).save(folder / "a.png")
    (folder / "task.jsonl").write_text('{"image": "a.png", "question": "q", "answer": "a"}\n')
    with pytest.raises(UsageRefusal, match="its name is not UTF-8"):
        open_task(folder)


def test_utf16_is_told_once(folder: Path) -> None:
    (folder / "t.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW), encoding="utf-16")
    (fault,) = read_rows(folder / "t.jsonl")
    assert isinstance(fault, Refusal)
    assert fault.what.endswith("t.jsonl is UTF-16")


def test_a_toml_beside_a_file_that_is_named_is_not_used_silently(folder: Path) -> None:
    write(folder / "t.jsonl", ROW)
    assert "task.toml" not in " ".join(open_task(folder / "t.jsonl").notes)
    (folder / "task.toml").write_text('file = "t.jsonl"\nmetric = "vqa-simple"\n')
    assert open_task(folder).metric == "vqa-simple"
    assert open_task(folder / "t.jsonl").metric == "exact"
    assert "task.toml is not used" in open_task(folder / "t.jsonl").notes[-1]
