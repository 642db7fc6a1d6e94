"""RSVQA, low resolution: questions on satellite pictures, by default those whose answer is no number.

A number is answered by the range it lies in, as the release's own evaluation does.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.task import Example, Recipe

COUNT = "count"
RANGES = ((0, "0"), (10, "between 1 and 10"), (100, "between 11 and 100"), (1000, "between 101 and 1000"))
"""The largest number of each range, and the answer that stands for it."""
ABOVE = "more than 1000"
MOST_DIGITS = 18


def read(release: Release, split: str, numeric: bool = False) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`; what the release marks as inactive belongs to another split.

    Args:
        numeric: whether questions that are answered by a number are read too.
    """
    questions = release.file(f"LR_split_{split}_questions.json")
    answers: dict[str, str] = {}
    yield from _read_answers(release.file(f"LR_split_{split}_answers.json"), answers)

    def made(record: Record) -> Iterator[Example]:
        if not record.truth("active", True):
            return
        kind = record.text("type")
        if kind == COUNT and not numeric:
            return
        identity = record.name("id")
        if identity not in answers:
            raise record.fault("has no answer in the split's file of answers")
        answer = answers[identity].lower()
        answer = range_of(record, answer) if kind == COUNT else answer
        picture = release.picture(f"Images_LR/{record.name('img_id')}.tif", record.where)
        prefix = release.prompt(question=record.text("question"))
        yield example(record, identity, prefix, [answer], picture, kind)

    yield from release.rows(read_records(questions, "questions"), made)


def _read_answers(file: Path, answers: dict[str, str]) -> Iterator[Refusal]:
    """Note the answer of each question; gives the records that are at fault."""
    for record in read_records(file, "answers"):
        if isinstance(record, Refusal):
            yield record
            continue
        try:
            if record.truth("active", True):
                answers[record.name("question_id")] = record.name("answer")
        except Refusal as fault:
            yield fault


def range_of(record: Record, number: str) -> str:
    """The answer that stands for a number, 0 or more, of a record."""
    if not number.isdecimal() or len(number) > MOST_DIGITS:
        raise record.fault(f"asks how many, and is answered {number!r}")
    return next((text for most, text in RANGES if int(number) <= most), ABOVE)


def _with_numbers(release: Release) -> Reader:
    """The task with questions that ask for a number, where its TOML says so."""
    numeric = release.options.get("numeric", False)
    if not isinstance(numeric, bool):
        raise UsageRefusal(f"{release.folder}: numeric is {numeric!r}", "give true or false")
    if not numeric:
        return READER
    return replace(
        READER,
        read=partial(read, numeric=True),
        sizes={"train": 57_223, "val": 10_005, "test": 10_004},
        notes=("a number is answered by the range it lies in",),
    )


READER = Reader(
    name="rsvqa",
    description="questions on satellite pictures",
    source="rsvqa.sylvainlobry.com",
    files=("LR_split_*_questions.json",),
    images=("Images_LR", "Images_LR.zip", "Images_LR.tar", "images", "images.zip"),
    released=("train", "val", "test"),
    splits={"train": "train", "val": "val", "test": "test"},
    read=read,
    recipe=Recipe(epochs=3, batch_size=256, label_smoothing=0.2),
    sizes={"train": 39_441, "val": 6_782, "test": 6_782},
    notes=("questions that ask for a number are left out: numeric = true brings them in",),
    options=("numeric",),
    resolved=_with_numbers,
)
