"""A-OKVQA, multiple choice: questions that need knowledge of the world, with four options, on COCO photos."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.releases.multiple_choice import TEMPLATE, options_text, right_option
from pamctl.tasks.task import Example, Recipe


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `val`."""

    def made(record: Record) -> Iterator[Example]:
        options = record.texts("choices")
        answer = right_option(record, options, "correct_choice_idx")
        picture = release.picture(f"{split}2017/{record.whole('image_id'):012d}.jpg", record.where)
        prefix = release.prompt(question=record.text("question"), options=options_text(options))
        yield example(record, record.name("question_id"), prefix, [answer], picture)

    return release.rows(read_records(release.file(f"aokvqa_v1p0_{split}.json")), made)


READER = Reader(
    name="aokvqa",
    description="questions that need knowledge of the world, with four options, on COCO pictures",
    source="aokvqa.allenai.org",
    files=("aokvqa_v1p0_*.json",),
    images=tuple(
        f"{name}{ending}" for name in ("train2017", "val2017", "images") for ending in ("", ".zip", ".tar")
    ),
    released=("train", "val"),
    splits={"train": "train", "val": "val", "test": "val"},
    read=read,
    template=TEMPLATE,
    metric="exact-case",
    text_length=128,
    recipe=Recipe(epochs=15, batch_size=128),
    sizes={"train": 17_056, "val": 1_145},
    notes=("the answers of A-OKVQA's own test split are not public: its val is scored as test",),
)
