"""The layout that VQAv2 and OK-VQA share: questions in one file, ten answers each in another, COCO images."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pamctl.refusal import Refusal
from pamctl.tasks.releases.asked import Asked
from pamctl.tasks.releases.record import Record, read_records
from pamctl.tasks.releases.release import Release, example
from pamctl.tasks.task import Example

IMAGES = tuple(
    f"{name}{ending}" for name in ("train2014", "val2014", "images") for ending in ("", ".zip", ".tar")
)


def answer_type(record: Record) -> str | None:
    """The kind of question that an annotation tells."""
    return record.text("answer_type", "") or None


def coco_examples(
    release: Release,
    questions: Path,
    annotations: Path,
    year: str,
    type_of: Callable[[Record], str | None] = answer_type,
) -> Iterator[Example | Refusal]:
    """One example for each annotation, in the file's order.

    Args:
        questions: a file whose `questions` have question_id, image_id and question.
        annotations: a file whose `annotations` have question_id and ten answers.
        year: of the images, such as train2014.
        type_of: the type of an annotation's question.
    """
    asked = Asked(questions, "questions", lambda record: (record.text("question"), record.whole("image_id")))
    yield from asked.read()

    def made(record: Record) -> Iterator[Example]:
        identity, (question, image) = asked.taken(record)
        picture = release.picture(f"{year}/COCO_{year}_{image:012d}.jpg", record.where)
        prefix = release.prompt(question=question)
        answers = record.texts("answers", of="answer")
        yield example(record, identity, prefix, answers, picture, type_of(record))

    yield from release.rows(read_records(annotations, "annotations"), made)
    yield from asked.unanswered(annotations)
