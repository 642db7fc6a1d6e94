"""ActivityNet-QA: questions on long videos of what people do."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.releases.asked import Asked
from pamctl.tasks.task import Example, Recipe

TYPES = (
    "motion",
    "spatial relationship",
    "temporal relationship",
    "yes/no",
    "color",
    "object",
    "location",
    "number",
    "other",
)
"""By their number in the release."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`: questions in one file, answers in another."""
    answers = release.file(f"{split}_a.json")
    questions = release.file(f"{split}_q.json")
    asked = Asked(questions, None, lambda record: (record.text("question"), record.text("video_name")))
    yield from asked.read()

    def made(record: Record) -> Iterator[Example]:
        identity, (question, video) = asked.taken(record)
        clip = release.clip([f"v_{video}", video], record.where)
        prefix = release.prompt(question=question)
        yield example(record, identity, prefix, [record.text("answer")], clip, _type(record))

    yield from release.rows(read_records(answers), made)
    yield from asked.unanswered(answers)


def _type(record: Record) -> str:
    number = record.whole("type")
    if not 0 <= number < len(TYPES):
        raise record.fault(f"has {number} as `type`, not 0 to {len(TYPES) - 1}")
    return TYPES[number]


READER = Reader(
    name="activitynet-qa",
    description="questions on long videos of what people do",
    source="github.com/MILVLG/activitynet-qa",
    files=("*_q.json", "*_a.json"),
    images=("videos", "video", "all", "frames", "Activity_Videos"),
    released=("train", "val", "test"),
    splits={"train": "train", "val": "val", "test": "test"},
    read=read,
    text_length=64,
    frames=16,
    stride=70,
    recipe=Recipe(epochs=1, batch_size=128, weight_decay=1e-6),
    sizes={"train": 32_000, "val": 18_000, "test": 8_000},
)
