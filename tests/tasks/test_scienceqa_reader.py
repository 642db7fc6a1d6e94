"""ScienceQA as it is released: its questions with a picture, their options in order, and in another."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pamctl.evaluation.answers import metric_named
from pamctl.refusal import UsageRefusal
from pamctl.tasks import open_task
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

NORTH = (
    "Question: Which of these states is farthest north?\nContext: N/A\n"
    "Options: (A) West Virginia, (B) Louisiana, (C) Arizona, (D) Oklahoma\nAnswer:"
)
MAGNETS = (
    "Question: Will these magnets attract or repel?\n"
    "Context: Two magnets are placed as shown.\nHint: Magnets that attract pull together.\n"
    "Options: (A) attract, (B) repel\nAnswer:"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("scienceqa", tmp_path)


def test_only_questions_with_a_picture_are_read() -> None:
    task = open_task(RELEASES / "scienceqa")
    ids = {split: [example.id for example in task.split(split)] for split in task.splits}
    assert ids == {"train": ["1", "4", "7", "14"], "val": ["6", "12"], "test": ["9", "11"]}


def test_prompt_answer_subject_and_picture() -> None:
    train = open_task(RELEASES / "scienceqa").split("train")
    assert texts(train)[:2] == [("1", NORTH, ("The answer is A.",)), ("4", MAGNETS, ("The answer is B.",))]
    assert [example.type for example in train] == [
        "social science",
        "natural science",
        "language science",
        "natural science",
    ]
    for example in train:
        assert np.array_equal(pixels(example), drawn(int(example.id)))


def test_the_letter_is_scored_and_an_answer_without_one_is_not_read() -> None:
    task = open_task(RELEASES / "scienceqa")
    first = task.split("train")[0]
    assert score(task, "The answer is A.", first) == 1
    assert score(task, "The answer is B.", first) == 0
    assert not metric_named(task.metric).reads("West Virginia")
    assert (task.text_length, task.recipe.epochs, task.recipe.batch_size) == (512, 20, 128)


def test_each_visit_has_another_order_and_the_letter_that_goes_with_it() -> None:
    task = open_task(RELEASES / "scienceqa")
    north = task.split("train")[0]
    right: Counter[str] = Counter()
    for epoch in range(200):
        prompt, answer = task.visit(north, 3, epoch)
        assert f"({answer[-2]}) West Virginia" in prompt
        options = prompt.split("Options: ")[1].removesuffix("\nAnswer:").split(", ")
        assert [option[:4] for option in options] == ["(A) ", "(B) ", "(C) ", "(D) "]
        assert {option[4:] for option in options} == {"West Virginia", "Louisiana", "Arizona", "Oklahoma"}
        right[answer] += 1
    assert min(right[f"The answer is {letter}."] for letter in "ABCD") > 25
    assert task.visit(north, 3, 7) == task.visit(north, 3, 7)
    assert len({task.visit(north, seed, 7).prefix for seed in range(20)}) > 5


def test_the_options_keep_their_order_with_answers_first(folder: Path) -> None:
    task = open_task(with_toml(folder, 'reader = "scienceqa"\nanswers = "first"\n'))
    assert task.visit(task.split("train")[0], 3, 7) == (NORTH, "The answer is A.")


def test_another_template_and_the_smaller_splits(folder: Path) -> None:
    said = 'reader = "scienceqa"\ntemplate = "{question} {options}"\n[splits]\ntest = "minival"\n'
    task = open_task(with_toml(folder, said))
    assert texts(task.split("test")) == [
        ("6", "Which is warmer? (A) the left, (B) the right", ("The answer is A.",))
    ]


def test_without_pid_splits_nothing_is_read(folder: Path) -> None:
    (folder / "pid_splits.json").unlink()
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("train")
    assert refusal.value.what == f"{folder} has no pid_splits.json"


def test_what_pid_splits_lists_and_is_nowhere_is_named(folder: Path) -> None:
    edit_json(folder / "pid_splits.json", lambda listed: listed["train"].extend(["90", "91", "92", "93"]))
    (fault,) = faults(folder, "train")
    assert fault == "problems.json has no problem 90, 91, 92, ..., which pid_splits.json lists in train"
    assert faults(folder, "test") == []


def test_pid_splits_of_another_kind(folder: Path) -> None:
    file = folder / "pid_splits.json"
    file.write_text('{"train": [1, 2],\n "val": []}')
    with pytest.raises(
        Exception, match=r"pid_splits.json line 1 \(train\) has a list as `train`, not a list of"
    ):
        open_task(folder).split("train")
    with pytest.raises(Exception, match=r"pid_splits.json has no split `test`"):
        open_task(folder).split("test")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("answer", 4, "has 4 as `answer`, a place among 4 choices"),
        ("answer", -1, "has -1 as `answer`, a place among 4 choices"),
        ("answer", "A", "has a text as `answer`, not a whole number"),
        ("choices", "A", "has a text as `choices`, not a list of texts"),
        ("choices", [f"{number}" for number in range(27)], "has 0 as `answer`, a place among 27 choices"),
        ("hint", 5, "has a number as `hint`, not a text"),
        ("image", ["image.png"], "has a list as `image`, not a text"),
        ("question", None, "has null as `question`, not a text"),
    ],
)
def test_a_field_of_another_kind_is_named_by_line(folder: Path, field: str, value: object, told: str) -> None:
    edit_json(folder / "problems.json", lambda problems: problems["1"].update({field: value}))
    assert faults(folder, "train") == [f"problems.json line 2 (1) {told}"]


def test_a_problem_whose_picture_is_not_told_or_whose_text_is_half_is_at_fault(folder: Path) -> None:
    edit_json(folder / "problems.json", lambda problems: problems["1"].pop("image"))
    (fault,) = faults(folder, "train")
    assert fault.endswith("(1) has no `image`, which is null where there is none")
    problems = json.loads((folder / "problems.json").read_text())
    problems["1"] |= {"image": "image.png", "hint": "\ud83d"}
    (folder / "problems.json").write_text(json.dumps(problems))
    (fault,) = faults(folder, "train")
    assert "(1) has a text with half of a character" in fault
