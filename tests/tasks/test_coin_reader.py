"""CoIN's six tasks from its instructions: prompts, answers, pictures, scores, and faults by their place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.sequences.sequence_file import read_sequence
from pamctl.sequences.task_places import located
from pamctl.tasks import Task, open_task
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    drawn,
    edit_json,
    faults,
    pixels,
    score,
    texts,
    with_toml,
)

INSTRUCTIONS = RELEASES / "coin" / "Instructions_Original"
WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@pytest.fixture
def coin(tmp_path: Path) -> Path:
    return copied("coin", tmp_path)


@pytest.mark.parametrize(
    ("name", "metric", "counts", "text_length"),
    [
        ("ScienceQA", "coin-scienceqa", {"train": 4, "test": 2}, 512),
        ("TextVQA", "coin-textvqa", {"train": 3, "test": 2}, 64),
        ("GQA", "coin-gqa", {"train": 3, "test": 2}, 64),
        ("VizWiz", "coin-vqa", {"train": 2, "test": 1}, 128),
        ("VQAv2", "coin-vqa", {"train": 3, "test": 2}, 64),
        ("OCRVQA", "coin-ocrvqa", {"train": 2, "val": 1, "test": 1}, 128),
    ],
)
def test_the_folder_of_a_task_needs_no_toml(
    name: str, metric: str, counts: dict[str, int], text_length: int
) -> None:
    task = open_task(INSTRUCTIONS / name)
    assert (task.name, task.metric, task.text_length) == (name.lower(), metric, text_length)
    assert {split: len(examples) for split, examples in task.splits.items()} == counts
    assert all(example.load_images() for examples in task.splits.values() for example in examples)


def test_the_recipe_is_that_of_the_shipped_sequence() -> None:
    sequence = read_sequence("coin-1")
    assert located(sequence, str(INSTRUCTIONS)).keys() == sequence.tasks.keys()
    for name, place in located(sequence, str(INSTRUCTIONS)).items():
        recipe = open_task(place).recipe
        for setting, value in sequence.tasks[name].settings.items():
            assert getattr(recipe, setting) == value, (name, setting)


def test_a_conversation_is_an_example_and_its_instruction_stays() -> None:
    examples = open_task(INSTRUCTIONS / "GQA").split("train")
    assert texts(list(examples)) == [
        ("07333408", f"What is on the white wall?{WORD}", ("pipe",)),
        ("07333405", f"Is that pipe red?{WORD}", ("no",)),
        ("15736264", f"Which color is the cat?{WORD}", ("black",)),
    ]
    assert (pixels(examples[2]) == drawn(22)).all()


def test_ids_that_come_again_are_numbered() -> None:
    assert [example.id for example in open_task(INSTRUCTIONS / "VQAv2").split("train")] == [
        "458752",
        "458752-2",
        "262146",
    ]


def test_each_turn_of_a_longer_conversation_is_an_example(coin: Path) -> None:
    folder = coin / "Instructions_Original" / "GQA"

    def longer(records: Any) -> None:
        records[0]["conversations"] += [
            {"from": "human", "value": "Why?"},
            {"from": "gpt", "value": "It is."},
        ]

    edit_json(folder / "train.json", longer)
    first, second, *_ = open_task(folder).split("train")
    assert (second.id, second.prefix, second.answers) == ("07333408-2", "Why?", ("It is.",))
    assert second.load_images == first.load_images


def test_a_question_on_text_alone_gets_a_plain_grey_picture() -> None:
    pictured, text = open_task(INSTRUCTIONS / "ScienceQA").split("test")
    assert (pictured.type, text.type) == ("image", "text")
    assert pictured.prefix == f"What is the capital of Québec?\nA. Québec\nB. Montréal{LETTER}"
    assert (pixels(pictured) == drawn(4)).all()
    assert (pixels(text) == 128).all()


def test_text_vqa_is_scored_by_the_ten_answers_of_its_own_annotations() -> None:
    task = open_task(INSTRUCTIONS / "TextVQA")
    first, second = task.split("test")
    assert first.answers == ("5:41",) * 7 + ("17:41",) * 3
    assert score(task, "5:41", first) == 1
    assert score(task, "Café", second) == pytest.approx(0.6)


def test_coins_scoring_is_the_default_and_paligemmas_can_be_asked_for(coin: Path) -> None:
    folder = coin / "Instructions_Original" / "GQA"
    task = open_task(folder)
    example = task.split("test")[1]
    assert [score(task, said, example) for said in ("Woman.", "women")] == [1, 0]
    exact = open_task(with_toml(folder, 'reader = "coin"\nscoring = "paligemma"'))
    assert [score(exact, said, example) for said in ("Woman", "Woman.")] == [1, 0]


def test_a_toml_chooses_task_instructions_and_prompt(coin: Path) -> None:
    (coin / "Instructions_Original").rename(coin / "Instructions_Diverse")
    more = 'template = "answer en {question}"\nmissing = "skip"'
    toml = with_toml(coin, f'reader = "coin"\ntask = "GQA"\ninstructions = "Instructions_Diverse"\n{more}')
    task = open_task(toml)
    assert task.name == "gqa"
    assert task.split("test")[0].prefix == "answer en Is it overcast?"


def test_the_layout_of_coins_scripts_is_found_too(coin: Path) -> None:
    (coin / "playground").mkdir()
    shutil.move(coin / "Instructions_Original", coin / "playground")
    alone = open_task(coin / "playground" / "Instructions_Original" / "GQA").split("test")
    told = open_task(with_toml(coin, 'reader = "coin"\ntask = "GQA"')).split("test")
    assert texts(list(alone)) == texts(list(told))
    assert (pixels(told[0]) == drawn(23)).all()


@pytest.mark.parametrize(
    ("toml", "what", "way_on"),
    [
        (
            "",
            "coin is not the folder of one task of CoIN",
            "name that folder, or in a TOML `task`: ScienceQA",
        ),
        ('task = "GQAA"', "task is 'GQAA'", "did you mean GQA?"),
        ('task = "Grounding"', "task is 'Grounding'", "ScienceQA, TextVQA, GQA, VizWiz, VQAv2, OCRVQA"),
        ("task = [1]", "task is [1]", "ScienceQA"),
    ],
)
def test_a_folder_of_several_tasks_asks_which(coin: Path, toml: str, what: str, way_on: str) -> None:
    folder = with_toml(coin, f'reader = "coin"\n{toml}') if toml else coin
    with pytest.raises(UsageRefusal) as refused:
        open_task(folder)
    assert what in refused.value.what
    assert way_on in refused.value.way_on


def test_instructions_that_are_not_there_are_named(coin: Path) -> None:
    task = open_task(with_toml(coin, 'reader = "coin"\ntask = "GQA"\ninstructions = "Instructions_10Type"'))
    with pytest.raises(UsageRefusal, match="has no Instructions_10Type/GQA"):
        task.split("test")


def turns(record: Any, *said: object) -> None:
    record["conversations"] = list(said)


@pytest.mark.parametrize(
    ("task", "file", "change", "fault"),
    [
        ("GQA", "train", lambda r: r[1].pop("id"), "train.json line 16 (1) has no `id`"),
        ("GQA", "train", lambda r: r[1].pop("image"), "train.json line 16 (1) has no `image`"),
        ("GQA", "train", lambda r: r.insert(1, 7), "train.json line 16 (1) is a number, not an object"),
        ("GQA", "train", lambda r: turns(r[0]), "line 2 (0) has no `conversations` of questions and answers"),
        (
            "GQA",
            "train",
            lambda r: turns(r[0], {"from": "gpt", "value": "no"}, {"from": "gpt", "value": "no"}),
            "line 2 (0) has as turn 1 of `conversations` no text that is from human",
        ),
        (
            "GQA",
            "train",
            lambda r: turns(r[0], {"from": "human", "value": "Why?"}, 3),
            "line 2 (0) has as turn 2 of `conversations` no text that is from gpt",
        ),
        ("GQA", "train", lambda r: r[0].update(image="GQA/no.png"), "line 2 (0): image GQA/no.png is not in"),
        ("GQA", "test", lambda r: r[0].update(answer=3), "test.json line 2 (0) has a number as `answer`"),
        ("GQA", "test", lambda r: r[0].update(answer=" "), "test.json line 2 (0) has no answer"),
        ("GQA", "test", lambda r: r[0].pop("text"), "test.json line 2 (0) has no `text`"),
        ("TextVQA", "val", lambda r: r[0].update(question_id="1"), "asks question 1, which TextVQA_0.5.1"),
    ],
)  # fmt: skip
def test_a_record_at_fault_is_named(
    coin: Path, task: str, file: str, change: Callable[[Any], object], fault: str
) -> None:
    folder = coin / "Instructions_Original" / task
    edit_json(folder / f"{file}.json", change)
    (said,) = faults(folder, "train" if file == "train" else "test")
    assert fault in said


def test_half_a_character_is_refused(coin: Path) -> None:
    file = coin / "Instructions_Original" / "GQA" / "test.json"
    file.write_text(file.read_text().replace("overcast", "\\ud83d"))
    (said,) = faults(file.parent, "test")
    assert said == "test.json line 2 (0) has a text with half of a character in it (a lone surrogate)"


def test_a_missing_side_file_is_named(coin: Path) -> None:
    (coin / "cl_dataset" / "TextVQA" / "TextVQA_0.5.1_val.json").unlink()
    task = open_task(coin / "Instructions_Original" / "TextVQA")
    assert len(task.split("train")) == 3
    with pytest.raises(UsageRefusal, match=r"TextVQA has no TextVQA_0.5.1_val.json, by which CoIN scores"):
        task.split("test")


def test_a_file_that_is_cut_off_is_named_with_its_line(coin: Path) -> None:
    file = coin / "Instructions_Original" / "GQA" / "test.json"
    file.write_bytes(file.read_bytes()[:-40].replace(b"\n", b"\r\n"))
    with pytest.raises(Refusal, match=r"test.json line \d+ is not JSON: it is cut off"):
        open_task(file.parent).split("test")


def test_a_folder_whose_training_file_holds_no_conversations_is_not_coins(tmp_path: Path) -> None:
    for content in ('[{"image": "a.png", "question": "q"}]', "[", "[7]", "[]"):
        (tmp_path / "train.json").write_text(content)
        with pytest.raises(UsageRefusal, match="no release that is known"):
            open_task(tmp_path)


def test_the_task_tells_what_coin_scores() -> None:
    noted: dict[str, Task] = {name: open_task(INSTRUCTIONS / name) for name in ("TextVQA", "GQA")}
    assert noted["TextVQA"].notes == ("CoIN scores TextVQA on val",)
    assert noted["GQA"].notes == ()
