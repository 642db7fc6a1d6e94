"""ScienceQA: school questions on a picture, answered with the letter of an option.

Only questions with a picture are read, as PaliGemma's transfer does; they are about half of them.
Source: lupantech/ScienceQA; google-research/big_vision, configs/proj/paligemma/transfers/science_qa.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase as LETTERS
from sys import intern

from pamctl.refusal import Refusal
from pamctl.tasks.json_stream import Element, read_elements
from pamctl.tasks.releases import Reader, Record, Release, read_records
from pamctl.tasks.releases.record import WAY_ON
from pamctl.tasks.releases.release import refuse_half_characters
from pamctl.tasks.task import Example, Recipe, Text
from pamctl.tasks.visits import shuffled

NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Example):
    """An example that can be asked again with its options in another order.

    Attributes:
        options: in the order of the release.
        right: place of the right one.
        ask: options in an order -> prompt.
    """

    options: tuple[str, ...]
    right: int
    ask: Callable[[Sequence[str]], str]


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of a split that `pid_splits.json` names."""
    listed, problems = release.file("pid_splits.json"), release.file("problems.json")
    wanted = _identities(listed, split)
    yield from release.rows(_wanted(read_records(problems), wanted), partial(_question, release))
    if wanted:
        some = ", ".join(list(wanted)[:NAMED_AT_MOST]) + (", ..." if len(wanted) > NAMED_AT_MOST else "")
        yield Refusal(f"{problems} has no problem {some}, which {listed.name} lists in {split}", WAY_ON)


def options_shuffled(example: Example, seed: int, epoch: int) -> Text:
    """The options in another order at each visit, with the letter that the right one then has."""
    if not isinstance(example, Question):
        return Text(example.prefix, example.suffix)
    order = shuffled(len(example.options), seed, example.id, epoch)
    prompt = example.ask([example.options[place] for place in order])
    return Text(prompt, _answer(order.index(example.right)))


def _identities(listed: Path, split: str) -> dict[str, None]:
    for element in read_elements(listed):
        if element.key == split:
            record = Record(listed, Element(split, element.line, {split: element.value}))
            return dict.fromkeys(record.texts(split))
    raise Refusal(f"{listed} has no split `{split}`", WAY_ON)


def _wanted(records: Iterator[Record | Refusal], wanted: dict[str, None]) -> Iterator[Record | Refusal]:
    """The records whose key is wanted, and is from then on no more."""
    for record in records:
        if isinstance(record, Refusal):
            yield record
        elif record.key in wanted:
            del wanted[record.key]
            yield record


def _question(release: Release, record: Record) -> Iterator[Example]:
    if "image" not in record.fields:
        raise record.fault("has no `image`, which is null where there is none")
    image = record.text("image", "")
    if not image:
        return
    options, right = tuple(record.texts("choices")), record.whole("answer")
    if not 0 <= right < len(options) <= len(LETTERS):
        raise record.fault(f"has {right} as `answer`, a place among {len(options)} choices")
    question, hint = record.text("question"), record.text("hint", "") or "N/A"
    refuse_half_characters(record, (record.key, question, hint, record.text("subject", ""), *options))
    ask = partial(_asked, release, question, hint)
    yield Question(
        id=record.key,
        prefix=ask(options),
        answers=(_answer(right),),
        load_images=release.picture(f"{record.text('split')}/{record.key}/{image}", record.where),
        type=intern(record.text("subject", "")) or None,
        options=options,
        right=right,
        ask=ask,
    )


def _asked(release: Release, question: str, hint: str, options: Sequence[str]) -> str:
    lettered = ", ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return release.prompt(question=question, hint=hint, options=lettered)


def _answer(place: int) -> str:
    return intern(f"The answer is {LETTERS[place]}.")


READER = Reader(
    name="scienceqa",
    description="school questions on a picture, answered with the letter of an option",
    source="scienceqa.github.io",
    files=("problems.json",),
    images=("images", ".", "train.zip", "val.zip", "test.zip"),
    released=("train", "val", "test", "trainval", "minival", "minitest"),
    splits={"train": "train", "val": "val", "test": "test"},
    read=read,
    template="Question: {question}\nContext: {hint}\nOptions: {options}\nAnswer:",
    metric="scienceqa",
    coin_metric="coin-scienceqa",
    text_length=512,
    visit=options_shuffled,
    recipe=Recipe(epochs=20, batch_size=128),
    sizes={"train": 6_218, "val": 2_097, "test": 2_017},
    notes=("only the questions of ScienceQA that have a picture are read",),
)
