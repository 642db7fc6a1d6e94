"""A TOML says how its task differs from what the reader of the release would make of it."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Recipe, Task, open_task
from pamctl.tasks.splits import ReadSplits
from pamctl.tasks.task import first_answer
from pamctl.tasks.visits import sampled_answer
from tests.tasks.release_cases import copied, rows, with_toml


def opened(tmp_path: Path, toml: str) -> Task:
    return open_task(with_toml(copied("vqav2", tmp_path), f'reader = "vqav2"\n{toml}'))


def ids(task: Task, split: str) -> list[str]:
    return [example.id for example in task.split(split)]


def test_a_toml_that_names_its_reader_alone_changes_nothing(tmp_path: Path) -> None:
    plain, told = open_task(copied("vqav2", tmp_path / "plain")), opened(tmp_path / "told", "")
    assert (told.name, told.metric, told.recipe) == (plain.name, plain.metric, plain.recipe)
    assert told.visit is plain.visit is sampled_answer
    assert {split: ids(told, split) for split in told.splits} == {
        split: ids(plain, split) for split in plain.splits
    }


def test_every_key_is_taken_over(tmp_path: Path) -> None:
    told = """
    name = "mine"
    description = "asked of me"
    metric = "vqa-simple"
    template = "Q: {question}"
    answers = "first"
    text_length = 40
    max_new_tokens = 7
    [recipe]
    epochs = 2
    lr = 1e-3
    batch_size = 8
    """
    task = opened(tmp_path, told)
    assert (task.name, task.description, task.metric) == ("mine", "asked of me", "vqa-simple")
    assert (task.text_length, task.max_new_tokens, task.visit) == (40, 7, first_answer)
    assert task.recipe == Recipe(epochs=2, batch_size=8, learning_rate=1e-3, weight_decay=1e-6)
    assert all(example.prefix.startswith("Q: ") for example in task.split("train"))


def test_a_file_is_named_after_itself_and_reads_data_elsewhere(tmp_path: Path) -> None:
    data = copied("vqav2", tmp_path)
    (tmp_path / "tomls").mkdir()
    file = tmp_path / "tomls" / "vqa-small.toml"
    file.write_text('\ufeffreader = "vqav2"\r\ndata = "../vqav2"\r\n', encoding="utf-8")
    task = open_task(file)
    assert task.name == "vqa-small"
    assert ids(task, "train") == ids(open_task(data), "train")
    assert task.path == str(file)


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    data = copied("vqav2", tmp_path)
    shutil.move(data / "train2014.zip", tmp_path / "coco.zip")
    with pytest.raises(Refusal, match=r"line \d+ \(0\): image train2014/COCO_.*is not in"):
        open_task(data).split("train")
    with_toml(data, 'reader = "vqav2"\nimages = "../coco.zip"\n')
    assert len(open_task(data).split("train")[0].load_images()) == 1
    with_toml(data, 'reader = "vqav2"\nimages = ["../nowhere.zip"]\n')
    with pytest.raises(UsageRefusal, match=r"nowhere\.zip does not exist"):
        open_task(data).split("train")


def test_examples_without_their_image_may_be_left_out(tmp_path: Path) -> None:
    task = opened(tmp_path, 'images = "val2014.zip"\nmissing = "skip"\n')
    assert rows(task, "train") == []
    assert len(ids(task, "val")) > 0
    assert any("left out" in note for note in task.notes)


def test_splits_are_joined_cut_and_drawn_from(tmp_path: Path) -> None:
    whole = open_task(copied("vqav2", tmp_path / "whole"))
    train, val = ids(whole, "train"), ids(whole, "val")
    told = """
    [splits]
    train = "train+val[:-2]"
    test = " val[-2:] "
    few = "train[1:3]"
    drawn = "train+val"
    [subsample]
    drawn = 3
    """
    task = opened(tmp_path / "cut", told)
    assert ids(task, "train") == train + val[:-2]
    assert ids(task, "test") == val[-2:]
    assert ids(task, "few") == train[1:3]
    drawn = ids(task, "drawn")
    assert len(drawn) == 3
    assert drawn == [name for name in train + val if name in drawn]
    seeded = opened(tmp_path / "seeded", f"subsample_seed = 5\n{told}")
    assert ids(seeded, "drawn") != drawn


def test_splits_made_of_the_same_examples_are_told_together(tmp_path: Path) -> None:
    splits = open_task(copied("vqav2", tmp_path)).splits
    assert isinstance(splits, ReadSplits)
    assert splits.alike() == [["train"], ["val", "test"]]
    assert splits.released_size("train") == 443_757
    cut = opened(tmp_path / "cut", '[splits]\ntrain = "train[:4]"\n').splits
    assert isinstance(cut, ReadSplits)
    assert cut.released_size("train") is None


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ('colour = "red"', "colour is not known"),
        ("text_length = 0", "text_length is 0"),
        ("frames = 99999999999999999999", "frames is 99999999999999999999"),
        ("frames = 2", "frames is 2, and vqav2 has pictures"),
        ('data = "a\\u0000b"', "data has a NUL character"),
        ('images = ["a\\u0000b"]', "images has a NUL character"),
        ('metric = "vqa2"', "metric: vqa2 is not known"),
        ("[recipe]\nlr = inf", "recipe.lr is inf"),
        (f"a = {'[' * 3000}", "is not TOML"),
        ('text_length = "long"', "text_length is 'long'"),
        ("text_length = true", "text_length is True"),
        ('missing = "ignore"', "missing is 'ignore'"),
        ('answers = "all"', "answers is 'all'"),
        ('scoring = "llava"', "scoring is 'llava'"),
        ('scoring = "coin"\nmetric = "vqa"', "has metric and scoring"),
        ('data = "nowhere"', "nowhere, which is no folder"),
        ("images = [1]", r"images is \[1\]"),
        ('[splits]\ntest = "dev"', "splits.test: 'dev' is no split of the release"),
        ('[splits]\ntest = "val[1]"', r"'val\[1\]' is no split"),
        ('[splits]\ntest = ""', "'' is no split"),
        ("[splits]\ntest = 3", "splits.test is 3"),
        ("[subsample]\ndev = 3", "subsample: dev is not known"),
        ("[subsample]\ntrain = 0", "subsample.train is 0"),
        ("[recipe]\nlearning = 3", "recipe: learning is not known"),
        ("[recipe]\nepochs = 1.5", "recipe.epochs is 1.5"),
        ("[recipe]\nepochs = 0", "recipe.epochs is 0"),
        ("[recipe]\nlr = nan", "recipe.lr is nan"),
        ("[recipe]\nlr = -1", "recipe.lr is -1"),
        ("reader = 'vqav2'", "is not TOML"),
    ],
)
def test_what_a_toml_may_not_say_is_named_with_file_and_key(tmp_path: Path, told: str, fault: str) -> None:
    with pytest.raises(UsageRefusal, match=rf"task\.toml.*{fault}"):
        opened(tmp_path, told)


@pytest.mark.parametrize(
    ("text", "fault", "way_on"),
    [
        ("", "has no `reader`", "vqav2"),
        ('reader = "vqa"', "vqa is not known", "did you mean vqav2?"),
        ("reader = 3", "reader is 3", "give a text"),
        (b"\xff", "is not TOML", "pamctl tasks --help"),
    ],
)
def test_a_toml_without_a_reader_is_refused(
    tmp_path: Path, text: str | bytes, fault: str, way_on: str
) -> None:
    file = tmp_path / "task.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageRefusal, match=fault) as refused:
        open_task(file)
    assert way_on in refused.value.way_on


def test_a_template_that_names_an_unknown_field_is_refused(tmp_path: Path) -> None:
    task = opened(tmp_path, 'template = "{question} {mood}"')
    with pytest.raises(UsageRefusal, match="names mood") as refused:
        task.split("train")
    assert "question" in refused.value.way_on


def test_braces_in_a_question_are_left_alone(tmp_path: Path) -> None:
    from pamctl.tasks.images import Images
    from pamctl.tasks.releases import Release

    release = Release(tmp_path, Images([]), "answer en {question}")
    assert release.prompt(question="what is {question} or {0.__class__}?") == (
        "answer en what is {question} or {0.__class__}?"
    )


def test_jsonl_with_a_toml_has_a_metric_and_images_in_an_archive(tmp_path: Path) -> None:
    data = copied("vqav2", tmp_path)
    archive = data / "train2014.zip"
    name = open_task(data).split("train")[0].load_images.name  # type: ignore[attr-defined]
    folder = tmp_path / "mine"
    folder.mkdir()
    line = f'{{"image": "{name}", "question": "what ?", "answers": ["a", "b"], "type": "t"}}\n'
    (folder / "train.jsonl").write_text(line * 2)
    (folder / "test.jsonl").write_text(line)
    with_toml(folder, f'reader = "jsonl"\nmetric = "vqa-single"\nanswers = "sampled"\nimages = "{archive}"\n')
    task = open_task(folder)
    assert (task.name, task.metric, task.visit) == ("mine", "vqa-single", sampled_answer)
    assert {split: len(task.splits[split]) for split in task.splits} == {"train": 2, "val": 0, "test": 1}
    (example,) = task.split("test")
    assert (example.prefix, example.answers, example.type) == ("what ?", ("a", "b"), "t")
    assert len(example.load_images()) == 1


@pytest.mark.parametrize(
    ("toml", "line", "fault"),
    [
        ("file = 3", '"split": "train"', "file is 3"),
        ("", '"split": "dev"', "line 1: `split` is 'dev'"),
    ],
)
def test_jsonl_with_a_toml_loses_no_line(tmp_path: Path, toml: str, line: str, fault: str) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    example = f'{{"image": "a.png", "question": "what ?", "answer": "a", {line}}}\n'
    (tmp_path / "task.jsonl").write_text(example)
    with pytest.raises(Refusal, match=fault):
        open_task(with_toml(tmp_path, f'reader = "jsonl"\n{toml}')).split("train")


def test_train_and_test_stay_as_released_where_a_toml_names_other_splits(tmp_path: Path) -> None:
    plain = open_task(copied("vqav2", tmp_path / "plain"))
    task = opened(tmp_path / "told", '[splits]\ntest = "val[-2:]"\n[subsample]\ntrain = 2\n')
    assert list(task.splits) == ["train", "test"]
    assert len(ids(task, "train")) == 2
    assert ids(task, "test") == ids(plain, "val")[-2:]
    assert not any("scored as test" in note for note in task.notes)
