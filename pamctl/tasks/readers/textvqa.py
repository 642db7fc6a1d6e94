"""TextVQA: questions on what is written in pictures, ten answers each."""

from collections.abc import Iterator, Mapping
from functools import partial

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.releases.open_images import Turned, quarter_turns
from pamctl.tasks.task import Example, Recipe
from pamctl.tasks.visits import sampled_answer

ROTATIONS = ("train_images/rotation.csv", "train-images-boxable-with-rotation.csv")
"""Where the table of turned pictures is looked for; big_vision's instructions name it as the first."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `val`, whose pictures are in one folder."""
    questions = release.file(f"TextVQA_0.5.1_{split}.json")
    made = partial(_example, release, _turns(release))
    return release.rows(read_records(questions, "data"), made)


def _example(release: Release, turns: Mapping[str, int], record: Record) -> Iterator[Example]:
    image = record.name("image_id")
    picture = release.picture(f"train_images/{image}.jpg", record.where)
    load = Turned(picture, turns[image]) if image in turns else picture
    prefix = release.prompt(question=record.text("question"))
    yield example(record, record.name("question_id"), prefix, record.texts("answers"), load)


def _turns(release: Release) -> Mapping[str, int]:
    """Image -> quarter turns that put it upright, of those that do not stand so; none without a table."""
    named = release.options.get("rotation")
    if named is None:
        found = [release.folder / place for place in ROTATIONS if (release.folder / place).is_file()]
        return quarter_turns(found[0]) if found else {}
    if not isinstance(named, str) or not (release.folder / named).is_file():
        raise UsageRefusal(
            f"{release.folder} has no file {named!r}, which the TOML gives as `rotation`",
            f"name Open Images' table, such as {ROTATIONS[-1]}",
        )
    return quarter_turns(release.folder / named)


READER = Reader(
    name="textvqa",
    description="questions on what is written in pictures, ten answers each",
    source="textvqa.org",
    files=("TextVQA_0.5.1_*.json",),
    images=("train_images", "train_val_images.zip", "images", "images.zip", "images.tar"),
    released=("train", "val"),
    splits={"train": "train", "val": "val", "test": "val"},
    read=read,
    metric="vqa",
    coin_metric="coin-textvqa",
    visit=sampled_answer,
    recipe=Recipe(epochs=5, batch_size=256),
    sizes={"train": 34_602, "val": 5_000},
    notes=(
        "the answers of TextVQA's own test split are not public: its val is scored as test",
        f"pictures that lie on their side are turned only where Open Images' {ROTATIONS[-1]} is",
    ),
    options=("rotation",),
)
