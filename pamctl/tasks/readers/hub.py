"""Data on the Hub, or parquet files on disk, whose columns a TOML tells.

    reader = "hub"
    dataset = "org/name"          # or files = { train = "data/train-*.parquet", test = ... }, from `data` on
    config = "default"
    revision = "1f2e3d..."        # a commit stays what it is; of a branch or tag the commit is told
    answer_template = "{answer}"  # what is trained on and accepted; {letter} is that of an option

    [splits]                      # default: train = "train", test = "test"
    test = "validation"

    [columns]                     # see pamctl/tasks/releases/columns.py
    answers = "answers"

With neither dataset nor files, the parquet files of the folder go by the names of their splits.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.images import Picture
from pamctl.tasks.releases import MissingImage, Reader, Record, Release, example
from pamctl.tasks.releases.columns import asked, columns_of
from pamctl.tasks.releases.hub_data import commit_of, hub_table, parquet_table
from pamctl.tasks.releases.table import ColumnOfPictures, Shown, Table
from pamctl.tasks.task import Example

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ON_HUB = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")
_TEXTS = ("dataset", "config", "revision", "answer_template")
_TABLES = ("columns", "files")


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of any split that the data have."""
    said = release.options
    table = _table(release, split)
    columns = columns_of(said.get("columns", {}), table.columns, table.place)
    pictures = ColumnOfPictures(table, columns.image)
    answering = replace(release, template=said.get("answer_template", "{answer}"))

    def made(record: Record) -> Iterator[Example]:
        identity = record.key if columns.id is None else record.name(columns.id)
        kind = None if columns.type is None else record.name(columns.type)
        picture = _picture(release, pictures, record)
        found = list(asked(record, columns))
        for place, (fields, accepted, letter) in enumerate(found):
            own = identity if len(found) == 1 else f"{identity}-{place + 1}"
            answers = [answering.prompt(answer=answer, letter=letter) for answer in accepted]
            yield example(record, own, release.prompt(**fields), answers, picture, kind)

    yield from release.rows(table.read(columns.texts, columns.image), made)


def _picture(release: Release, pictures: ColumnOfPictures, record: Record) -> Picture:
    shows: Shown = record.fields[pictures.column]
    if shows.encoded:
        return Picture(pictures, record.key, record.where)
    if shows.name:
        return release.picture(shows.name, record.where)
    raise MissingImage(
        f"{record.where} has no picture in `{pictures.column}`", 'set missing = "skip" to leave such rows out'
    )


def _table(release: Release, split: str) -> Table:
    said = release.options
    if "dataset" in said:
        return hub_table(said["dataset"], said.get("config"), said.get("revision"), split)
    files = {
        name: _matching(release.folder, patterns)
        for name, patterns in (said.get("files") or {split: _usual(split)}).items()
    }
    if split in files and not files[split]:
        raise UsageRefusal(
            f"{release.folder} has no parquet file of {split}", "name its files: files = { train = ..., ... }"
        )
    return parquet_table(files, split, str(release.folder))


def _usual(split: str) -> list[str]:
    """How the files of a split are called on the Hub."""
    return [f"{under}{split}[.-]*parquet" for under in ("", "*/")]


def _matching(folder: Path, patterns: str | Sequence[str]) -> list[Path]:
    each = [patterns] if isinstance(patterns, str) else patterns
    try:
        return [path for pattern in each for path in sorted(folder.glob(pattern))]
    except (ValueError, NotImplementedError) as fault:
        raise UsageRefusal(
            f"{folder}: files is {patterns!r}: {fault}", "give patterns from `data` on"
        ) from fault


def _resolved(release: Release) -> Reader:
    """Check its keys of the TOML, and tell the commit of a branch or tag, which may change."""
    said = release.options
    _check(release)
    if "dataset" not in said:
        return READER
    if "files" in said:
        raise UsageRefusal(f"{release.folder}: dataset and files are both given", "keep one of them")
    revision = said.get("revision")
    if revision and _COMMIT.fullmatch(revision):
        return READER
    commit = commit_of(said["dataset"], said.get("config"), revision)
    note = f'{said["dataset"]} may change: what is read now is revision = "{commit}"'
    return replace(READER, notes=(note,))


def _check(release: Release) -> None:
    for key, value in release.options.items():
        if key in _TEXTS and not isinstance(value, str):
            raise UsageRefusal(f"{release.folder}: {key} is {value!r}", "give a text")
        if key == "dataset" and not _ON_HUB.fullmatch(value):
            raise UsageRefusal(
                f"{release.folder}: dataset is {value!r}", "give its id on the Hub, such as org/name"
            )
        if key in _TABLES:
            held = value.values() if isinstance(value, dict) else [None]
            lists = [each if isinstance(each, list) and key == "files" else [each] for each in held]
            if not all(isinstance(text, str) for each in lists for text in each):
                raise UsageRefusal(f"{release.folder}: {key} is {value!r}", "give a table of texts")


READER = Reader(
    name="hub",
    description="data on the Hub, or parquet files, by columns that the TOML names",
    source="huggingface.co/datasets",
    released=(),
    splits={"train": "train", "test": "test"},
    read=read,
    images=(),
    template="{question}",
    text_length=128,
    cuts=False,
    resolved=_resolved,
    options=(*_TEXTS, *_TABLES),
)
