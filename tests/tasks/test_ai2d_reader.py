"""AI2D as it is released: a file of questions a diagram, letters painted where a question speaks of them."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Example, open_task
from pamctl.tasks.images.lettered import Label, Lettered
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    edit_json,
    faults,
    pixels,
    score,
    script,
    texts,
    with_toml,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("ai2d", tmp_path)


def diagram(seed: int) -> np.ndarray:
    """As it was drawn: (32, 48, 3) uint8."""
    return np.asarray(script("drawing").picture(seed, (48, 32)))


def test_options_stand_in_the_prompt_and_the_right_one_is_the_answer() -> None:
    task = open_task(RELEASES / "ai2d")
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 5, "test": 4}
    assert texts(task.split("test"))[:2] == [
        (
            "3.png-0",
            "answer en  Which phase follows new moon? choose from: Full \t Waxing crescent \t Waning \t none",
            ("Waxing crescent",),
        ),
        (
            "10.png-0",
            "answer en  From the diagram, what is D? choose from: larva \t Käfer \t egg \t pupa",
            ("Käfer",),
        ),
    ]
    assert [example.type for example in task.split("train")] == [
        "without letters",
        "without letters",
        "with letters",
        "with letters",
        "without letters",
    ]
    recipe = task.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay, task.text_length) == (10, 256, 1e-6, 128)


def test_the_case_of_an_option_is_kept() -> None:
    task = open_task(RELEASES / "ai2d")
    example = task.split("test")[0]
    assert score(task, "Waxing crescent", example) == 1
    assert score(task, "waxing crescent", example) == 0
    assert score(task, "Full", example) == 0


def painted(example: Example) -> np.ndarray:
    """Where a picture is not what was drawn, (32, 48) bool: the diagram is the third."""
    return np.any(pixels(example) != diagram(2), axis=-1)


def test_labels_are_painted_over_with_letters_where_a_question_speaks_of_them() -> None:
    _, _, by_letter, other_letter, by_words = open_task(RELEASES / "ai2d").split("train")
    assert np.array_equal(pixels(by_words), diagram(2))
    assert by_letter.load_images == other_letter.load_images
    boxes = np.zeros((32, 48), bool)
    boxes[3:15, 2:18] = boxes[16:30, 24:46] = True
    assert np.array_equal(painted(by_letter), boxes)
    image = pixels(by_letter)
    for box in (image[3:15, 2:18], image[16:30, 24:46]):
        assert (box == 255).all(-1).mean() > 0.5
        assert (box < 100).all(-1).any()
    assert not np.array_equal(image[3:15, 2:18], image[16:28, 24:40])


def test_corners_may_be_in_any_order() -> None:
    image = pixels(open_task(RELEASES / "ai2d").split("test")[1])
    assert (image[18:29, 30:45] == 255).all(-1).mean() > 0.5


def test_letters_are_as_large_as_their_box_lets_them_be(folder: Path) -> None:
    picture = open_task(folder).split("train")[0].load_images
    for height in (8, 16, 24):
        (image,) = Lettered(picture, (Label((0, 0, 40, height), "A"),))()  # type: ignore[arg-type]
        dark = np.flatnonzero((np.asarray(image)[: height + 1, :41] < 100).all(-1).any(1))
        assert height / 3 < dark[-1] - dark[0] + 1 <= height
    (image,) = Lettered(picture, (Label((5, 5, 5, 5), "A"),))()  # type: ignore[arg-type]
    assert image.size == (48, 32)


def test_another_font_is_named_in_the_toml(folder: Path) -> None:
    before = pixels(open_task(folder).split("train")[2])
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSerif.ttf")
    task = open_task(with_toml(folder, f'reader = "ai2d"\nfont = "{font}"\n'))
    assert not np.array_equal(pixels(task.split("train")[2]), before)


@pytest.mark.parametrize("font", ['"bad.ttf"', "3"])
def test_what_is_no_font_is_refused(folder: Path, font: str) -> None:
    (folder / "bad.ttf").write_bytes(b"no font")
    task = open_task(with_toml(folder, f'reader = "ai2d"\nfont = {font}\n'))
    with pytest.raises(UsageRefusal, match="font is "):
        task.split("test")


def test_the_test_ids_may_lie_beside_the_folder_as_they_are_unpacked(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "ai2d_test_ids.csv", tmp_path / "ai2d_test_ids.csv")
    (tmp_path / "ai2d_test_ids.csv").write_bytes(b"\xef\xbb\xbf3\r\n10\r\n")
    assert len(open_task(folder).split("test")) == 4
    around = open_task(tmp_path)
    assert [len(around.split(split)) for split in ("train", "test")] == [5, 4]
    assert np.array_equal(pixels(around.split("test")[0]), diagram(1))
    (tmp_path / "ai2d_test_ids.csv").unlink()
    with pytest.raises(UsageRefusal, match=r"has no ai2d_test_ids\.csv"):
        open_task(folder).split("train")
    (folder / "ai2d_test_ids.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match=r"ai2d_test_ids\.csv is not UTF-8"):
        open_task(folder).split("train")


def test_a_diagram_whose_annotations_are_missing_or_wrong_is_told_by_each_question(folder: Path) -> None:
    (folder / "annotations" / "7.png.json").unlink()
    assert faults(folder, "train") == ["annotations/7.png.json does not exist"] * 2
    file = folder / "annotations" / "10.png.json"
    for rectangle in ([[1, 2]], [[1, 2], [3, "4"]], "1 2 3 4", [[1, 2], [3, 1e300]], None):
        edit_json(file, lambda content, wrong=rectangle: content["text"]["T1"].update(rectangle=wrong))
        first, second = faults(folder, "test")
        assert "annotations/10.png.json line " in first
        assert first.endswith(" (T1) has no two corners in pixels as `rectangle`")
        assert second == first
    edit_json(file, lambda content: content.pop("text"))
    assert faults(folder, "test") == ["annotations/10.png.json has no member `text`"] * 2


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("correctAnswer", 4, "has 4 as `correctAnswer`, and 4 options counted from 0"),
        ("correctAnswer", -1, "has -1 as `correctAnswer`, and 4 options counted from 0"),
        ("correctAnswer", None, "has null as `correctAnswer`, not a name or number"),
        ("answerTexts", "a, b", "has a text as `answerTexts`, not a list of texts"),
        ("answerTexts", ["a", 2, "c", "d"], "has a list as `answerTexts`, not a list of texts"),
        ("abcLabel", 1, "has a number as `abcLabel`, not true or false"),
        ("questionId", [], "has a list as `questionId`, not a name or number"),
    ],
)
def test_a_question_at_fault_is_named_by_file_line_and_text(
    folder: Path, key: str, value: object, fault: str
) -> None:
    question = "What do frogs eat?"
    edit_json(
        folder / "questions/0.png.json", lambda content: content["questions"][question].update({key: value})
    )
    (told,) = faults(folder, "train")
    assert told == f"questions/0.png.json line 4 ({question}) {fault}"


def test_a_file_that_is_cut_off_leaves_the_other_diagrams(folder: Path) -> None:
    file = folder / "questions" / "7.png.json"
    file.write_bytes(file.read_bytes()[:-9])
    (told,) = [fault for fault in faults(folder, "train") if "cut off" in fault]
    assert told == "questions/7.png.json line 1 is not JSON: it is cut off"
    assert faults(folder, "test") == []


def test_a_diagram_that_is_missing_is_named_with_its_question(folder: Path) -> None:
    (folder / "images" / "3.png").unlink()
    (told,) = faults(folder, "test")
    assert told.startswith(
        "questions/3.png.json line 1 (Which phase follows new moon?): image images/3.png is not"
    )
    assert len(open_task(with_toml(folder, 'reader = "ai2d"\nmissing = "skip"\n')).split("test")) == 3
