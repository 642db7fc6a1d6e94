"""The layout that MSVD-QA and MSRVTT-QA share: a list of questions a split, with one answer and a video each.

Both are released at github.com/xudejing/video-question-answering, without their videos.
"""

from collections.abc import Callable, Iterator, Sequence

from pamctl.refusal import Refusal
from pamctl.tasks.releases.record import Record, first_record, read_records
from pamctl.tasks.releases.release import Release, example
from pamctl.tasks.task import Example

FILES = ("*_qa.json",)
SPLITS = ("train", "val", "test")
PLACES = ("videos", "video", "YouTubeClips", "all", "frames")
"""Where videos mostly lie, beside the questions."""
ASKED_FOR = ("what", "who", "how", "when", "where")
"""First words of a question, by which papers tell the types apart."""


def video_examples(
    release: Release, split: str, names_of: Callable[[Record], Sequence[str]]
) -> Iterator[Example | Refusal]:
    """The questions of `train`, `val` or `test`.

    Args:
        names_of: the names that a record's video may have, without their endings.
    """

    def made(record: Record) -> Iterator[Example]:
        question = record.text("question")
        clip = release.clip(names_of(record), record.where)
        first = question.strip().partition(" ")[0].lower()
        kind = first if first in ASKED_FOR else "other"
        prefix = release.prompt(question=question)
        yield example(record, record.name("id"), prefix, [record.text("answer")], clip, kind)

    return release.rows(read_records(release.file(f"{split}_qa.json")), made)


def has_categories(release: Release) -> bool:
    """Whether questions have the category of their video, as those of MSRVTT-QA alone do."""
    first = first_record(release.file(*FILES))
    return first is not None and "category_id" in first.fields
