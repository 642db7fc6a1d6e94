"""OK-VQA: questions on COCO pictures that need knowledge of the world, ten answers each."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release
from pamctl.tasks.releases.coco_questions import IMAGES, coco_examples
from pamctl.tasks.task import Example, Recipe
from pamctl.tasks.visits import sampled_answer

CATEGORIES = {
    "one": "vehicles and transportation",
    "two": "brands, companies and products",
    "three": "objects, material and clothing",
    "four": "sports and recreation",
    "five": "cooking and food",
    "six": "geography, history, language and culture",
    "seven": "people and everyday life",
    "eight": "plants and animals",
    "nine": "science and technology",
    "ten": "weather and climate",
    "other": "other",
}
"""The release numbers its fields of knowledge."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `val`."""
    questions = release.file(f"OpenEnded_mscoco_{split}2014_questions.json")
    annotations = release.file(f"mscoco_{split}2014_annotations.json")
    return coco_examples(release, questions, annotations, f"{split}2014", category)


def category(record: Record) -> str:
    """The field of knowledge that an annotation tells."""
    number = record.text("question_type")
    if number not in CATEGORIES:
        raise record.fault(
            f"has {number!r} as `question_type`, which OK-VQA does not have",
            "use the files of OK-VQA: those of the first VQA have the same names",
        )
    return CATEGORIES[number]


READER = Reader(
    name="okvqa",
    description="questions that need knowledge of the world, on COCO pictures, ten answers each",
    source="okvqa.allenai.org",
    files=("OpenEnded_mscoco_*2014_questions.json",),
    images=IMAGES,
    released=("train", "val"),
    splits={"train": "train", "val": "val", "test": "val"},
    read=read,
    metric="vqa-simple",
    visit=sampled_answer,
    recipe=Recipe(epochs=10, batch_size=128),
    sizes={"train": 9_009, "val": 5_046},
    notes=("OK-VQA is scored on its val split, which its authors call test",),
)
