"""The embedded tasks are the same everywhere, disjoint, and answerable from their pictures."""

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.tasks.embedded import ORDERS, TEST_EXAMPLES, TRAIN_EXAMPLES, embedded_tasks
from pamctl.tasks.embedded.canvas import CELL, GLYPHS, SHAPES, blurred, plain, put_bars
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.task import Example

NAMES = tuple(embedded_tasks())


def digest(examples: list[Example]) -> str:
    sha = hashlib.sha256()
    for example in examples:
        sha.update(f"{example.id}|{example.prefix}|{example.answers}|".encode())
        sha.update(np.asarray(example.load_images()[0]).tobytes())
    return sha.hexdigest()[:16]


def test_there_are_six_and_every_order_holds_each_once() -> None:
    assert len(NAMES) == 6
    assert all(sorted(order) == sorted(NAMES) for order in ORDERS)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_fields(name: str) -> None:
    task = embedded_tasks()[name]
    assert len(task.split("train")) == TRAIN_EXAMPLES
    assert len(task.split("test")) == TEST_EXAMPLES
    example = task.split("test")[7]
    assert example.id == "7"
    assert np.asarray(example.load_images()[0]).shape == (32, 32, 3)
    assert example.prefix == example.prefix.strip() != ""
    assert example.suffix == example.suffix.strip() != ""
    with pytest.raises(IndexError):
        task.split("test")[TEST_EXAMPLES]


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_is_in_both_splits(name: str) -> None:
    task = embedded_tasks()[name]
    train, test = (
        {np.asarray(example.load_images()[0]).tobytes() for example in task.split(split)}
        for split in ("train", "test")
    )
    assert len(train) == TRAIN_EXAMPLES
    assert len(test) == TEST_EXAMPLES
    assert not train & test


def test_another_process_draws_the_same() -> None:
    script = (
        "from test_embedded import *\n"
        "print([digest(task.split('test')[:20]) for task in embedded_tasks().values()])"
    )
    folder = __file__.rpartition("/")[0]
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == str([digest(task.split("test")[:20]) for task in embedded_tasks().values()])


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_a_safe_guess(name: str) -> None:
    answers = Counter(example.suffix for example in embedded_tasks()[name].split("train"))
    assert answers.most_common(1)[0][1] < 0.45 * TRAIN_EXAMPLES


def test_scienceqa_options_hold_the_answer_once() -> None:
    for example in embedded_tasks()["tiny-scienceqa"].split("test"):
        options = example.prefix[example.prefix.index("(a)") :].split(" ")
        assert options[0::2] == ["(a)", "(b)", "(c)"]
        assert len(set(options[1::2])) == 3
        assert example.suffix in "abc"


def test_textvqa_text_stands_in_the_picture() -> None:
    for example in embedded_tasks()["tiny-textvqa"].split("test")[:50]:
        pixels = np.asarray(example.load_images()[0]).min(-1) > 145
        rows = [row for row in range(4) if pixels[row * CELL : (row + 1) * CELL].any()]
        assert len(rows) == 1
        cells = [pixels[rows[0] * CELL : rows[0] * CELL + 7, 8 * i + 1 : 8 * i + 6] for i in range(4)]
        letters = [
            letter for cell in cells for letter, glyph in GLYPHS.items() if np.array_equal(cell, glyph)
        ]
        assert "".join(letters) == example.suffix


@given(st.integers(1, 1000), st.integers(0, 2**63))
def test_draws_stay_in_bounds_and_repeat(bound: int, index: int) -> None:
    first, second = Draws(0, "stream", index), Draws(0, "stream", index)
    drawn = [first.below(bound) for _ in range(20)]
    assert drawn == [second.below(bound) for _ in range(20)]
    assert all(0 <= number < bound for number in drawn)
    assert sorted(first.sample(range(10), 10)) == list(range(10))


def test_streams_differ() -> None:
    words = {tuple(Draws(seed, stream, 0).sample(range(50), 9)) for seed in (0, 1) for stream in ("a", "b")}
    assert len(words) == 4


def test_canvas_draws_what_is_asked() -> None:
    canvas = plain((0, 0, 0))
    put_bars(canvas, [4, 30], [(1, 1, 1), (2, 2, 2)])
    assert (canvas[:, 3, 0] == 1).sum() == 4
    assert (canvas[:, 11, 0] == 2).sum() == 30
    assert (blurred(plain((9, 9, 9))) == 9).all()
    assert all(bitmap.shape == (7, 7) for bitmap in SHAPES.values())
    assert all(bitmap.shape == (7, 5) for bitmap in GLYPHS.values())
