"""VizWiz: what blind people asked about pictures that they took, ten answers each, often "unanswerable"."""

from collections.abc import Iterator

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.releases import Reader, Record, Release, example, first_record, read_records
from pamctl.tasks.task import Example, Recipe
from pamctl.tasks.visits import sampled_answer


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `val`; an example is named after its picture, and answers that are empty are left out."""

    def made(record: Record) -> Iterator[Example]:
        image = record.name("image")
        answers = [answer for answer in record.texts("answers", of="answer") if answer]
        picture = release.picture(f"{split}/{image}", record.where)
        prefix = release.prompt(question=record.text("question"))
        yield example(record, image, prefix, answers, picture, record.text("answer_type", "") or None)

    return release.rows(read_records(release.file(f"{split}.json")), made)


def told_apart(release: Release) -> bool:
    """Whether its records are VizWiz's, whose files have names that many others have too."""
    try:
        first = first_record(release.file("train.json", "val.json"))
    except UsageRefusal:
        return False
    return first is not None and {"image", "question", "answers", "answerable"} <= first.fields.keys()


READER = Reader(
    name="vizwiz",
    description="what blind people asked about their pictures, ten answers each",
    source="vizwiz.org",
    files=("train.json|val.json|[Aa]nnotations/train.json|[Aa]nnotations/val.json",),
    told_apart=told_apart,
    images=("images", ".", "train.zip", "val.zip"),
    released=("train", "val"),
    splits={"train": "train", "val": "val", "test": "val"},
    read=read,
    metric="vqa-simple",
    coin_metric="coin-vqa",
    text_length=48,
    visit=sampled_answer,
    recipe=Recipe(epochs=10, batch_size=256),
    sizes={"train": 20_523, "val": 4_319},
    notes=("the answers of VizWiz's own test split are not public: its val is scored as test",),
)
