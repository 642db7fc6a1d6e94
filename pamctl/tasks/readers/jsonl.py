"""JSON Lines with a TOML beside them, which gives them a metric, a recipe or a place for their images."""

from collections.abc import Iterator
from dataclasses import replace

from pamctl.refusal import Refusal
from pamctl.tasks.jsonl import WITHOUT_SPLITS, read_rows, task_files
from pamctl.tasks.releases import Reader, Release
from pamctl.tasks.task import Example


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """The lines of one split; those that name none are `train` and `test`."""
    picture = release.picture if release.images.named else None
    for file, of in task_files(release.folder / release.options.get("file", ".")):
        for row in read_rows(file, of, picture):
            if isinstance(row, Refusal):
                yield row
            elif row.split == split or (row.split is None and split in WITHOUT_SPLITS):
                yield replace(row.example, prefix=release.prompt(question=row.example.prefix))


READER = Reader(
    name="jsonl",
    description="one example a line, with its image beside the file",
    source="your own",
    released=("train", "val", "test"),
    splits={"train": "train", "val": "val", "test": "test"},
    read=read,
    images=(),
    template="{question}",
    text_length=128,
    cuts=False,
    options=("file",),
)
