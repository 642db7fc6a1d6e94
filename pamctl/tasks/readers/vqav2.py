"""VQAv2: open questions on COCO pictures, ten answers each."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Release
from pamctl.tasks.releases.coco_questions import IMAGES, coco_examples
from pamctl.tasks.task import Example, Recipe
from pamctl.tasks.visits import sampled_answer


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `val`."""
    questions = release.file(f"v2_OpenEnded_mscoco_{split}2014_questions.json")
    annotations = release.file(f"v2_mscoco_{split}2014_annotations.json")
    return coco_examples(release, questions, annotations, f"{split}2014")


READER = Reader(
    name="vqav2",
    description="open questions on COCO pictures, ten answers each",
    source="visualqa.org",
    files=("v2_OpenEnded_mscoco_*_questions.json",),
    images=IMAGES,
    released=("train", "val"),
    splits={"train": "train", "val": "val", "test": "val"},
    read=read,
    metric="vqa",
    coin_metric="coin-vqa",
    visit=sampled_answer,
    recipe=Recipe(epochs=10, batch_size=256, weight_decay=1e-6),
    sizes={"train": 443_757, "val": 214_354},
    notes=("the answers of VQAv2's own test split are not public: its val is scored as test",),
)
