"""MSRVTT-QA: short questions on videos of twenty categories."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release
from pamctl.tasks.releases.video_questions import FILES, PLACES, SPLITS, has_categories, video_examples
from pamctl.tasks.task import Example, Recipe


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`."""

    def names_of(record: Record) -> list[str]:
        return [f"video{record.whole('video_id')}"]

    return video_examples(release, split, names_of)


READER = Reader(
    name="msrvtt-qa",
    description="short questions on videos of twenty categories",
    source="github.com/xudejing/video-question-answering",
    files=FILES,
    told_apart=has_categories,
    images=(*PLACES, "TrainValVideo", "TestVideo"),
    released=SPLITS,
    splits={split: split for split in SPLITS},
    read=read,
    text_length=64,
    frames=16,
    stride=9,
    recipe=Recipe(epochs=1, batch_size=128),
    sizes={"train": 158_581, "val": 12_278, "test": 72_821},
)
