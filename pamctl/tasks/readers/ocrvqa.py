"""OCR-VQA: questions on the covers of books, one answer each."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.releases import Reader, Record, Release, example, first_record, read_records
from pamctl.tasks.task import Example, Recipe

SPLITS: Mapping[int, str] = {1: "train", 2: "val", 3: "test"}
ENDINGS = (".jpg", ".jpeg", ".png")
"""Of covers that are read; the few others are GIF."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`; an example is named after its book and its place among the questions."""

    def made(record: Record) -> Iterator[Example]:
        number, ending = record.whole("split"), PurePosixPath(record.text("imageURL")).suffix
        if number not in SPLITS:
            raise record.fault(f"has {number} as `split`, not 1, 2 or 3")
        if not ending:
            raise record.fault("has no file of a picture as `imageURL`")
        if SPLITS[number] != split or ending.lower() not in ENDINGS:
            return
        questions, answers = record.texts("questions"), record.texts("answers")
        if len(questions) != len(answers):
            raise record.fault(f"has {len(questions)} questions and {len(answers)} answers")
        picture = release.picture(f"images/{record.key}{ending}", record.where)
        for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            prefix = release.prompt(question=question)
            yield example(record, f"{record.key}/{place}", prefix, [answer], picture)

    return release.rows(read_records(release.file("dataset.json")), made)


def told_apart(release: Release) -> bool:
    """Whether its records are books, whose file has a name that many others have too."""
    try:
        first = first_record(release.file("dataset.json"))
    except UsageRefusal:
        return False
    return first is not None and {"imageURL", "questions", "answers", "split"} <= first.fields.keys()


READER = Reader(
    name="ocrvqa",
    description="questions on the covers of books, one answer each",
    source="ocr-vqa.github.io",
    files=("dataset.json",),
    told_apart=told_apart,
    released=("train", "val", "test"),
    splits={"train": "train", "val": "val", "test": "test"},
    read=read,
    coin_metric="coin-ocrvqa",
    recipe=Recipe(epochs=3, batch_size=128),
    notes=('covers are on the web, some no longer: missing = "skip" leaves out books without one',),
)
