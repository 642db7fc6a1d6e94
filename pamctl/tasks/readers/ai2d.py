"""AI2D: multiple-choice questions on diagrams from school books.

Where a question speaks of letters, the labels of its diagram are painted over with them, as the release's
annotations say and google-research/big_vision, datasets/ai2d/ai2d.py does.
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.images.lettered import Label, Lettered, font_of
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.releases.multiple_choice import TEMPLATE, options_text, right_option
from pamctl.tasks.task import Example, LoadImages, Recipe

TEST_IDS = "ai2d_test_ids.csv"
FARTHEST = 1e5
"""A label's coordinate, in pixels."""


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train` or `test`: the questions on each diagram, which have a file of their own."""
    questions = release.file("questions/*.json").parent
    test, font = _test_ids(release), _font(release)
    for file in sorted(questions.glob("*.json"), key=lambda path: (len(path.name), path.name)):
        image = file.name.removesuffix(".json")
        if (image.partition(".")[0] in test) is (split == "test"):
            try:
                yield from _asked(release, file, image, font)
            except Refusal as fault:
                yield fault


def _asked(release: Release, file: Path, image: str, font: str | None) -> Iterator[Example | Refusal]:
    """The questions of a file."""
    labels = cache(partial(_labels, file.parent.parent / "annotations" / file.name))

    def made(record: Record) -> Iterator[Example]:
        options = record.texts("answerTexts")
        answer = right_option(record, options, "correctAnswer")
        picture = release.picture(f"images/{image}", record.where)
        lettered = record.truth("abcLabel")
        load: LoadImages = Lettered(picture, labels(), font) if lettered else picture
        prefix = release.prompt(question=record.key, options=options_text(options))
        kind = "with letters" if lettered else "without letters"
        yield example(record, record.name("questionId"), prefix, [answer], load, kind)

    return release.rows(read_records(file, "questions"), made)


def _labels(annotations: Path) -> tuple[Label, ...]:
    """What the labels of a diagram are replaced by."""
    found = []
    for record in read_records(annotations, "text"):
        if isinstance(record, Refusal):
            raise record
        found.append(Label(_box(record), record.text("replacementText")))
    return tuple(found)


def _box(record: Record) -> tuple[float, float, float, float]:
    match record.fields.get("rectangle"):
        case [
            [int() | float() as left, int() | float() as top],
            [int() | float() as right, int() | float() as bottom],
        ] if all(abs(each) <= FARTHEST for each in (left, top, right, bottom)):
            return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
    raise record.fault("has no two corners in pixels as `rectangle`")


def _test_ids(release: Release) -> frozenset[str]:
    """The diagrams of the test split: the list is released by itself, and may lie beside the folder."""
    beside = release.folder.resolve().parent / TEST_IDS
    file = beside if beside.is_file() else release.file(TEST_IDS)
    try:
        return frozenset(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as fault:
        raise Refusal(f"{file} is not UTF-8", "download it once more") from fault


def _font(release: Release) -> str | None:
    name = release.options.get("font")
    if name is None:
        return None
    try:
        font_of(str(release.folder / name), 10)
    except (OSError, TypeError) as fault:
        raise UsageRefusal(f"{release.folder}: font is {name!r}: {fault}", "name a TrueType file") from fault
    return str(release.folder / name)


READER = Reader(
    name="ai2d",
    description="multiple-choice questions on diagrams from school books",
    source="allenai.org/data/diagrams",
    files=("questions/*.json|ai2d/questions/*.json", "annotations/*.json|ai2d/annotations/*.json"),
    images=("images", "images.zip", "images.tar", "ai2d/images"),
    released=("train", "test"),
    splits={"train": "train", "test": "test"},
    read=read,
    template=TEMPLATE,
    metric="exact-case",
    text_length=128,
    recipe=Recipe(epochs=10, batch_size=256, weight_decay=1e-6),
    sizes={"test": 3_088},
    notes=("letters are painted in Pillow's own font: name DMSans-Regular.ttf as `font` for big_vision's",),
    options=("font",),
)
