"""GQA: questions made of scene graphs, one answer each."""

from collections.abc import Iterator
from sys import intern

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.task import Example, Recipe


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of the balanced questions of `train`, `val` or `testdev`; their type is the structural one."""

    def made(record: Record) -> Iterator[Example]:
        picture = release.picture(f"images/{record.name('imageId')}.jpg", record.where)
        prefix = release.prompt(question=record.text("question"))
        yield example(record, record.key, prefix, [record.text("answer")], picture, _structure(record))

    return release.rows(read_records(release.file(f"{split}_balanced_questions.json")), made)


def _structure(record: Record) -> str | None:
    """Verify, query, choose, logical or compare."""
    types = record.fields.get("types")
    structure = types.get("structural") if isinstance(types, dict) else None
    return intern(structure) if isinstance(structure, str) and structure else None


READER = Reader(
    name="gqa",
    description="questions made of scene graphs, one answer each",
    source="cs.stanford.edu/people/dorarad/gqa",
    files=("*_balanced_questions.json",),
    released=("train", "val", "testdev"),
    splits={"train": "train", "val": "val", "test": "testdev"},
    read=read,
    coin_metric="coin-gqa",
    recipe=Recipe(epochs=1, batch_size=256),
    sizes={"train": 943_000, "val": 132_062, "testdev": 12_578},
    notes=("the answers of GQA's own test split are not public: its testdev is scored as test",),
)
