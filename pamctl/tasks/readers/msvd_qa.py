"""MSVD-QA: short questions on short videos from YouTube."""

from collections.abc import Iterator

from pamctl.refusal import Refusal
from pamctl.tasks.releases import Reader, Record, Release
from pamctl.tasks.releases.video_questions import FILES, PLACES, SPLITS, has_categories, video_examples
from pamctl.tasks.task import Example, Recipe

MAPPING = "youtube_mapping.txt"


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`; a video is a file by its name on YouTube, from second to second."""
    names = _names(release)

    def names_of(record: Record) -> list[str]:
        number = f"vid{record.whole('video_id')}"
        if number not in names:
            raise record.fault(f"is on {number}, which {MAPPING} does not have")
        return [names[number], number]

    return video_examples(release, split, names_of)


def _names(release: Release) -> dict[str, str]:
    """The videos by number, such as vid1 -> mv89psg6zh4_33_46."""
    file = release.file(MAPPING)
    names = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as fault:
        raise Refusal(f"{file} is not UTF-8", "download it once more") from fault
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match line.split():
            case [name, identity]:
                names[identity] = name
            case _:
                raise Refusal(
                    f"{file} line {number} is not a video's name and its number", "use the file as released"
                )
    return names


READER = Reader(
    name="msvd-qa",
    description="short questions on short videos from YouTube",
    source="github.com/xudejing/video-question-answering",
    files=FILES,
    told_apart=lambda release: not has_categories(release),
    images=PLACES,
    released=SPLITS,
    splits={split: split for split in SPLITS},
    read=read,
    text_length=64,
    frames=8,
    stride=26,
    recipe=Recipe(epochs=1, batch_size=128, weight_decay=3e-7),
    sizes={"train": 30_933, "val": 6_415, "test": 13_157},
)
