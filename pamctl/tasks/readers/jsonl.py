"""JSON Lines with a TOML beside them, which gives them a metric, a recipe or a place for their images."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.jsonl import WITHOUT_SPLITS, Row, read_rows, task_files
from pamctl.tasks.releases import Reader, Release
from pamctl.tasks.task import Example

WHOLE = "all"
"""What the lines of a file that names no splits are."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """The lines of one split, or of a file that names none; a line at fault may be of any."""
    picture = release.picture if release.images.named else None
    for file, of in task_files(_place(release)):
        for row in read_rows(file, of, picture):
            if isinstance(row, Refusal):
                yield row
            elif row.split and row.split not in READER.released:
                yield Refusal(
                    f"{file} line {row.line}: `split` is {row.split!r}",
                    f"beside a TOML it is one of: {', '.join(READER.released)}",
                )
            elif (row.split or WHOLE) == split:
                yield replace(row.example, prefix=release.prompt(question=row.example.prefix))


def resolved(release: Release) -> Reader:
    """The reader of files that name splits, or of one that names none, as the first sound line tells."""
    files = task_files(_place(release))
    picture = release.picture if release.images.named else None
    rows = (row for file, of in files for row in read_rows(file, of, picture))
    row = next((row for row in rows if isinstance(row, Row)), None)
    if row is None or row.split:
        return READER
    note = "no line names a split, so it is trained on and tested on the same examples"
    return replace(READER, released=(WHOLE,), splits=dict.fromkeys(WITHOUT_SPLITS, WHOLE), notes=(note,))


def _place(release: Release) -> Path:
    """The file that the TOML names, else the folder."""
    named = release.options.get("file", ".")
    if not isinstance(named, str):
        raise UsageRefusal(f"{release.folder}: file is {named!r}", "give the name of a .jsonl file")
    return release.folder / named


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
    resolved=resolved,
)
