"""What a JSONL task is: one example a line, its image beside the file, every fault named by file and line.

Each line is an object with `image` (a path, relative to the file), `question` or `prefix` (the prompt, used
word for word), and one of `answer`, `suffix` (a string) or `answers` (a list; the first is trained on). `id`
is optional and defaults to the line number. `type` is a kind of question, by which scores are broken down.
`split` stands on every line or on none; a file without it serves as both `train` and `test`. Other fields are
left alone. A byte order mark, CRLF and blank lines are fine.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.characters import CUT, whole_characters
from pamctl.tasks.images import Picture, picture_file
from pamctl.tasks.releases.record import kind
from pamctl.tasks.task import Example, Task

SPLIT_FILES = ("train", "val", "test")
UNNAMED = ""
WITHOUT_SPLITS = ("train", "test")
PROMPT_FIELDS = ("question", "prefix")
ANSWER_FIELDS = ("answer", "suffix", "answers")
OF_A_START = 64
"""Bytes that tell whether a file is of another format."""
FEW = 10
FindPicture = Callable[[str, str], Picture]


@dataclass(frozen=True)
class Row:
    """One line as read: an example and the split it names, if any."""

    line: int
    split: str | None
    example: Example


def jsonl_task(path: Path) -> Task:
    """The task of a `.jsonl` file, or of a folder that holds `task.jsonl` or one file a split.

    It is named after the file, or after its folder where the file's name only tells its role.
    """
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    name = folder.name if path.is_dir() or path.stem in ("task", *SPLIT_FILES) else path.stem
    splits: dict[str, list[Example]] = {}
    for file, split in task_files(path):
        for row in read_rows(file, split):
            if isinstance(row, Refusal):
                raise row
            splits.setdefault(row.split or UNNAMED, []).append(row.example)
    if UNNAMED not in splits:
        return Task(name, splits)
    note = f"task {name} names no splits, so it is trained on and tested on the same examples"
    return Task(name, dict.fromkeys(WITHOUT_SPLITS, splits[UNNAMED]), notes=(note,))


def holds_jsonl(folder: Path) -> bool:
    """Whether a folder holds a file of either layout."""
    return any((folder / f"{name}.jsonl").is_file() for name in ("task", *SPLIT_FILES))


def task_files(path: Path) -> list[tuple[Path, str | None]]:
    """The JSONL files a task is made of, each with the split it holds when its name tells.

    Refuses a folder that holds no such file, or both layouts.
    """
    if not path.is_dir():
        return [(path, None)]
    whole = path / "task.jsonl"
    parts: list[tuple[Path, str | None]] = [
        (part, split) for split in SPLIT_FILES if (part := path / f"{split}.jsonl").is_file()
    ]
    if whole.is_file() and parts:
        raise UsageRefusal(f"{path} holds task.jsonl and {parts[0][0].name}", "keep one of the two layouts")
    if not whole.is_file() and not parts:
        raise UsageRefusal(
            f"{path} holds no task.jsonl and no train.jsonl, val.jsonl or test.jsonl",
            "add one, or name the file",
        )
    return [(whole, None)] if whole.is_file() else parts


def read_rows(
    path: Path, split: str | None = None, picture: FindPicture | None = None
) -> Iterator[Row | Refusal]:
    """Every line of a file as a row, or as the refusal that tells its fault.

    Args:
        split: that of the file.
        picture: (name, where) -> the image of a line; None takes the path relative to the file.
    """
    if other := _other_format(path):
        yield other
        return
    seen: dict[tuple[str | None, str], Row] = {}
    empty = True
    for number, text in _lines(path):
        empty = False
        try:
            row = _row(path, number, text, split, picture or partial(_beside, path))
            _check_against(seen, row, f"{path} line {number}")
            yield row
        except Refusal as fault:
            yield fault
    if empty:
        yield Refusal(f"{path} holds no examples", "write one JSON object a line")


def _other_format(path: Path) -> Refusal | None:
    """What is said of a file whose every line would be at fault."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(OF_A_START)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Refusal(f"{path} is UTF-16", "save the file as UTF-8")
    if re.match(rb"(\xef\xbb\xbf)?\s*\[\s*\{", start):
        return Refusal(
            f"{path} is a JSON array",
            "write one object a line, without brackets around them or commas between",
        )
    return None


def _check_against(seen: dict[tuple[str | None, str], Row], row: Row, where: str) -> None:
    first = next(iter(seen.values()), row)
    if (row.split is None) != (first.split is None):
        raise Refusal(
            f"{where}: `split` stands on some lines only, unlike line {first.line}",
            "give every line a split, or none",
        )
    before = seen.setdefault((row.split, row.example.id), row)
    if before is not row:
        raise Refusal(
            f"{where}: id {row.example.id!r} is on line {before.line} too", "give each line its own id"
        )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        raise UsageRefusal(f"{path} is not a file", "name a .jsonl file, or a folder that holds one")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if text:
                yield number, text


def _row(path: Path, number: int, text: bytes, file_split: str | None, picture: FindPicture) -> Row:
    where = f"{path} line {number}"
    record = _object(where, text)
    prefix, answers = _one_of(where, record, PROMPT_FIELDS), _answers(where, record)
    identity = record.get("id", number)
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise Refusal(
            f"{where}: `id` is {kind(identity)}", "give a string or a whole number, or leave it out"
        )
    split = record.get("split")
    if split is not None and (not isinstance(split, str) or not split):
        raise Refusal(
            f"{where}: `split` is {kind(split)}", "give a name such as train or test, or leave it out"
        )
    if file_split and split not in (None, file_split):
        raise Refusal(f"{where}: `split` is {split!r} in {path.name}", "leave `split` out, or move the line")
    load = picture(_image(where, record), f"{where} (id {identity})")
    example = Example(str(identity), prefix, answers, load, _type(where, record))
    if not whole_characters((example.id, prefix, example.type or "", split or "", *answers)):
        raise Refusal(f"{where} {CUT}", "write the whole character, or remove the line")
    return Row(number, file_split or split, example)


def _object(where: str, text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise Refusal(f"{where} is not UTF-8 (byte {fault.start + 1})", "save the file as UTF-8") from fault
    except (ValueError, RecursionError) as fault:
        told = f"{fault.msg}, column {fault.colno}" if isinstance(fault, json.JSONDecodeError) else fault
        raise Refusal(f"{where} is not JSON: {told}", "write one JSON object a line") from fault
    if not isinstance(record, dict):
        raise Refusal(
            f"{where} is {kind(record)}, not an object",
            'write {"image": ..., "question": ..., "answer": ...}',
        )
    return record


def _one_of(where: str, record: dict[str, Any], names: tuple[str, ...]) -> Any:
    present = [name for name in names if name in record]
    listed = " or ".join(f"`{name}`" for name in names)
    if len(present) != 1:
        if not present:
            raise Refusal(f"{where} has no {listed}{_has(record)}", f"give one of {listed}")
        raise Refusal(f"{where} has both `{present[0]}` and `{present[1]}`", f"give one of {listed}")
    value = record[present[0]]
    if present[0] == "answers":
        return value
    if not isinstance(value, str):
        raise Refusal(f"{where}: `{present[0]}` is {kind(value)}", "give a string")
    return value


def _answers(where: str, record: dict[str, Any]) -> tuple[str, ...]:
    value = _one_of(where, record, ANSWER_FIELDS)
    answers = [value] if isinstance(value, str) and "answers" not in record else value
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise Refusal(f"{where}: `answers` is not a list of strings", 'give a list such as ["red"]')
    if not answers or not all(answer.strip() for answer in answers):
        raise Refusal(f"{where}: the answer is empty", "give an answer, or remove the line")
    return tuple(answers)


def _image(where: str, record: dict[str, Any]) -> str:
    value = record.get("image")
    if "image" not in record:
        way_on = "give the image's path, relative to the file"
        raise Refusal(f"{where} has no `image`{_has(record)}", way_on)
    if not isinstance(value, str) or not value or "\0" in value:
        said = "a path with a NUL character" if isinstance(value, str) and value else kind(value)
        raise Refusal(f"{where}: `image` is {said}", "give the image's path, relative to the file")
    return value


def _beside(path: Path, name: str, where: str) -> Picture:
    image = path.parent / name
    if not os.path.isfile(image):  # which a name too long for any file is not
        if "://" in name:
            raise Refusal(f"{where}: image {name} is not on disk", "download it, and give its path")
        fault = "is a folder" if os.path.isdir(image) else "does not exist"
        raise Refusal(f"{where}: image {image} {fault}", "put it there; paths are relative to the file")
    return picture_file(image, where)


def _type(where: str, record: dict[str, Any]) -> str | None:
    value = record.get("type")
    if value is not None and (not isinstance(value, str) or not value):
        raise Refusal(f"{where}: `type` is {kind(value)}", "give a kind of question, or leave it out")
    return value


def _has(record: dict[str, Any]) -> str:
    """The names that a line has in place of a missing one, where they are few."""
    names = [str(name) for name in record]
    return f", but {', '.join(names)}" if 0 < len(names) <= FEW else ""
