"""CoIN: six of its tasks as its authors release them, with their instructions and their way of scoring.

Training files are LLaVA's conversations; evaluation files have `question_id`, `text` and `answer`. ScienceQA
has questions on text alone: such a question gets a plain grey picture. ImageNet and Grounding are no tasks of
the paper, and are not read.

Source: zackschen/CoIN, README.md, ETrain/Eval/LLaVA/CoIN and scripts/LLaVA/Eval.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pamctl.refusal import Refusal
from pamctl.tasks.images.blank import Blank
from pamctl.tasks.releases import Reader, Record, Release, example, read_records
from pamctl.tasks.releases.coin_folders import ROOTS, file_of, folder_of, holds_coin, task_of
from pamctl.tasks.task import Example, LoadImages, Recipe

TEXT_VQA_ANSWERS = "TextVQA_0.5.1_val.json"


@dataclass(frozen=True)
class CoinTask:
    """What differs from task to task.

    Attributes:
        coin_metric, metric: with CoIN's scoring, and with PaliGemma's.
        scored: the released split that CoIN scores.
        val: whether there is another one to choose by.
        text_length: more than for PaliGemma's own prompts, which are shorter than instructions.
    """

    coin_metric: str
    metric: str = "exact"
    scored: str = "test"
    val: bool = False
    text_length: int = 64
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def splits(self) -> Mapping[str, str]:
        return {"train": "train", **({"val": "val"} if self.val else {}), "test": self.scored}


TASKS: Mapping[str, CoinTask] = {
    "ScienceQA": CoinTask("coin-scienceqa", text_length=512, recipe=Recipe(epochs=20, batch_size=128)),
    "TextVQA": CoinTask("coin-textvqa", "vqa", scored="val", recipe=Recipe(epochs=5, batch_size=256)),
    "GQA": CoinTask("coin-gqa", recipe=Recipe(epochs=1, batch_size=256)),
    "VizWiz": CoinTask("coin-vqa", scored="val", text_length=128, recipe=Recipe(epochs=10, batch_size=256)),
    "VQAv2": CoinTask("coin-vqa", scored="val", recipe=Recipe(epochs=10, batch_size=256, weight_decay=1e-6)),
    "OCRVQA": CoinTask("coin-ocrvqa", val=True, text_length=128, recipe=Recipe(epochs=3, batch_size=128)),
}


def read(release: Release, split: str) -> Iterator[Example | Refusal]:
    """Of `train`, `val` or `test`."""
    task = task_of(release, TASKS)
    records = read_records(folder_of(release, task) / f"{split}.json")
    return release.rows(records, _trained(release, task) if split == "train" else _scored(release, task))


def _trained(release: Release, task: str) -> Callable[[Record], Iterator[Example]]:
    """Makes examples of conversations: every answer with what was asked just before it.

    An id that comes again, as where a picture has several questions, is numbered.
    """
    times: dict[str, int] = {}

    def made(record: Record) -> Iterator[Example]:
        picture = _picture(release, task, record)
        for text, answer in _turns(record):
            identity = record.name("id")
            times[identity] = times.get(identity, 0) + 1
            if times[identity] > 1:
                identity += f"-{times[identity]}"
            yield example(record, identity, _prompt(release, text), [answer], picture, _type(task, picture))

    return made


def _scored(release: Release, task: str) -> Callable[[Record], Iterator[Example]]:
    """Makes examples of an evaluation file; the ten answers of TextVQA's stand in its own annotations."""
    ten = _text_vqa_answers(release) if task == "TextVQA" else None

    def made(record: Record) -> Iterator[Example]:
        identity, prompt = record.name("question_id"), _prompt(release, record.text("text"))
        if ten is not None and identity not in ten:
            raise record.fault(f"asks question {identity}, which {TEXT_VQA_ANSWERS} does not have")
        answers = [record.text("answer")] if ten is None else ten[identity]
        picture = _picture(release, task, record)
        yield example(record, identity, prompt, answers, picture, _type(task, picture))

    return made


def _text_vqa_answers(release: Release) -> dict[str, list[str]]:
    answers = {}
    for record in read_records(file_of(release, "TextVQA", TEXT_VQA_ANSWERS), "data"):
        if isinstance(record, Refusal):
            raise record
        answers[record.name("question_id")] = record.texts("answers")
    return answers


def _turns(record: Record) -> Iterator[tuple[str, str]]:
    """Every question with its answer."""
    turns = record.fields.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise record.fault("has no `conversations` of questions and answers in turns")
    for place in range(0, len(turns), 2):
        yield _said(record, turns[place], "human", place), _said(record, turns[place + 1], "gpt", place + 1)


def _said(record: Record, turn: Any, speaker: str, place: int) -> str:
    if isinstance(turn, dict) and turn.get("from") == speaker and isinstance(turn.get("value"), str):
        return str(turn["value"])
    raise record.fault(f"has as turn {place + 1} of `conversations` no text that is from {speaker}")


def _prompt(release: Release, text: str) -> str:
    """The template filled in: all of the text but the place of the image, or the parts of it.

    The last of several lines is the instruction, and those before it the question.
    """
    text = text.replace("<image>", "").strip()
    question, _, instruction = text.rpartition("\n")
    parts = (question.strip(), instruction) if question else (text, "")
    return release.prompt(text=text, question=parts[0], instruction=parts[1])


def _picture(release: Release, task: str, record: Record) -> LoadImages:
    if task == "ScienceQA" and record.fields.get("image") is None:
        return Blank()
    return release.picture(record.text("image").removeprefix("./"), record.where)


def _type(task: str, picture: LoadImages) -> str | None:
    """CoIN tells ScienceQA's questions on a picture from those on text alone."""
    return None if task != "ScienceQA" else "text" if isinstance(picture, Blank) else "image"


def _one_task(release: Release) -> Reader:
    """The row of the task that is meant."""
    name = task_of(release, TASKS)
    task = TASKS[name]
    return replace(
        READER,
        task=name.lower(),
        splits=task.splits,
        metric=task.metric,
        coin_metric=task.coin_metric,
        text_length=task.text_length,
        recipe=task.recipe,
        notes=(f"CoIN scores {name} on {task.scored}",) if task.scored == "val" else (),
    )


READER = Reader(
    name="coin",
    description="six tasks of CoIN, with its instructions and its scoring",
    source="huggingface.co/datasets/Zacks-Chen/CoIN",
    released=("train", "val", "test"),
    splits={"train": "train", "test": "test"},
    read=read,
    files=("*",),
    told_apart=holds_coin,
    images=ROOTS,
    template="{text}",
    scoring="coin",
    resolved=_one_task,
    options=("task", "instructions"),
)
