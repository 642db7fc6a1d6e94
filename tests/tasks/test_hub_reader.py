"""Parquet files on disk and data on a Hub of our own: columns by name, pictures still encoded, faults."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as Picture

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from tests.hub_server import serve
from tests.tasks.release_cases import drawn, faults, pixels, rows, script, texts, with_toml

COLUMNS = {
    "question": Value("string"),
    "answers": List(Value("string")),
    "image": Picture(),
    "kind": ClassLabel(names=["number", "other"]),
}
ROWS = {
    "question": ["How many?", "Welche Größe?"],
    "answers": [["2", "two"], ["groß"]],
    "kind": [0, 1],
}


def encoded(seed: int) -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    return {"bytes": script("drawing").image_bytes(seed), "path": None}


def write_parquet(file: Path, columns: Mapping[str, list[Any]], features: Features | None = None) -> None:
    """A parquet file of one split."""
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.disable_progress_bars()
    Dataset.from_dict(dict(columns), features=features).to_parquet(file)


def write_splits(folder: Path) -> Path:
    """`train` and `test` as they lie in a repository of the Hub."""
    for seed, split in enumerate(("train", "test")):
        images = [encoded(10 * seed), encoded(10 * seed + 1)]
        features = Features(COLUMNS)
        write_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet", {**ROWS, "image": images}, features
        )
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded stays with the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_parquet_files_go_by_the_usual_names(tmp_path: Path) -> None:
    folder = with_toml(write_splits(tmp_path / "mine"), 'reader = "hub"\n[columns]\ntype = "kind"')
    task = open_task(folder)
    assert {split: len(examples) for split, examples in task.splits.items()} == {"train": 2, "test": 2}
    test = task.split("test")
    assert texts(list(test)) == [("0", "How many?", ("2", "two")), ("1", "Welche Größe?", ("groß",))]
    assert [example.type for example in test] == ["number", "other"]
    assert (pixels(test[1]) == drawn(11)).all()


def test_columns_of_other_names_and_shapes(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "all.parquet",
        {
            "q": ["Which?", "Who?"],
            "gold": [{"list": [{"answer": "a"}, {"answer": "b"}]}, {"list": [{"answer": "c"}]}],
            "key": [7, 8],
            "context": ["In spring.", "N/A"],
            "picture": [script("drawing").image_bytes(3)] * 2,
        },
    )
    toml = """
        reader = "hub"
        files = { everything = "*.parquet" }
        template = "{question} ({hint})"
        [splits]
        train = "everything[:1]"
        test = "everything[1:]"
        [columns]
        prefix = "q"
        answer = "gold.list.answer"
        id = "key"
        hint = "context"
        image = "picture"
    """
    task = open_task(with_toml(tmp_path, toml))
    assert texts(list(task.split("train"))) == [("7", "Which? (In spring.)", ("a", "b"))]
    assert texts(list(task.split("test"))) == [("8", "Who? (N/A)", ("c",))]
    assert (pixels(task.split("test")[0]) == drawn(3)).all()


def test_an_answer_that_is_a_number_is_the_place_of_an_option(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "test.parquet",
        {
            "question": ["A fish?", "A bird?"],
            "choices": [["cow", "shark"], ["hen"]],
            "answer": [1, 3],
            "image": [script("drawing").image_bytes(1)] * 2,
        },
    )
    more = 'template = "{question}\\n{options}"\nanswer_template = "It is {letter}, {answer}."'
    folder = with_toml(tmp_path, f'reader = "hub"\n{more}\n[columns]\noptions = "choices"')
    (example, _) = rows(open_task(folder), "test")
    assert not isinstance(example, Refusal)
    assert (example.prefix, example.answers) == ("A fish?\n(A) cow, (B) shark", ("It is B, shark.",))
    assert faults(folder, "test") == [f"{folder} test row 1 has 3 as `answer`, and 1 options"]


def test_a_row_with_several_questions_is_as_many_examples(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "test.parquet",
        {
            "question": [["Who?", "When?"], ["Why?"]],
            "answer": [["Ann", "1990"], []],
            "image": [script("drawing").image_bytes(1)] * 2,
        },
    )
    folder = with_toml(tmp_path, 'reader = "hub"\n[splits]\ntest = "test"')
    first, second, fault = rows(open_task(folder), "test")
    assert texts([first, second]) == [("0-1", "Who?", ("Ann",)), ("0-2", "When?", ("1990",))]  # type: ignore[list-item]
    assert isinstance(fault, Refusal)
    assert "row 1 has 1 of `question` and not as many `answer`" in fault.what


def test_pictures_may_be_files_beside_the_table_or_missing(tmp_path: Path) -> None:
    script("drawing").write_image(tmp_path / "pictures" / "a.png", 5)
    columns = {"question": ["x"] * 3, "answer": ["y"] * 3, "image": ["a.png", None, "b.png"]}
    write_parquet(tmp_path / "test.parquet", columns)
    head = 'reader = "hub"\nimages = "pictures"\n'
    folder = with_toml(tmp_path, head)
    first, *_ = rows(open_task(folder), "test")
    assert (pixels(first) == drawn(5)).all()  # type: ignore[arg-type]
    absent, elsewhere = faults(folder, "test")
    assert absent == f"{folder} test row 1 has no picture in `image`"
    assert elsewhere.startswith(f"{folder} test row 2: image b.png is not in")
    assert len(open_task(with_toml(tmp_path, f'{head}missing = "skip"')).split("test")) == 1


def test_a_picture_that_is_none_is_named_by_its_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test.parquet", {"question": ["x"], "answer": ["y"], "image": [b"no picture"]})
    (example,) = open_task(with_toml(tmp_path, 'reader = "hub"')).split("test")
    with pytest.raises(Refusal, match=r"test row 0: image .* test row 0 \(image\) cannot be read"):
        example.load_images()


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"question": [3]}, "test row 0 has a number as `question`, not a text"),
        ({"question": [None]}, "test row 0 has null as `question`, not a text"),
        ({"answer": [2.5]}, "test row 0 has a number as `answer`, not a text, a number or a list of texts"),
        ({"answer": [" "]}, "test row 0 has no answer"),
        ({"answer": [[]]}, "test row 0 has no answer"),
        ({"id": [True]}, "test row 0 has true or false as `id`, not a name or number"),
        ({"image": [{"bytes": "x", "path": None}]}, "test row 0 has no picture in `image`"),
        ({"image": [{"path": 3}]}, "test row 0 has no picture in `image`"),
    ],
)
def test_a_row_at_fault_is_named(tmp_path: Path, columns: dict[str, list[Any]], fault: str) -> None:
    usual = {"question": ["x"], "answer": ["y"], "image": ["a.png"]}
    write_parquet(tmp_path / "test.parquet", {**usual, **columns})
    script("drawing").write_image(tmp_path / "a.png", 1)
    (said,) = faults(with_toml(tmp_path, 'reader = "hub"\nimages = "."'), "test")
    assert fault in said


@pytest.mark.parametrize(
    ("toml", "what", "way_on"),
    [
        ("", "has no column answer", "name in [columns] which is its answer: question, gold, image"),
        ('[columns]\nanswer = "golden"', "has no column golden", "question, gold, image"),
        ('[columns]\nanswer = "gold"\nanswers = "gold"', "[columns] has answers and answer", "keep one"),
        ("columns = 3", "columns is 3", "give a table of texts"),
        ("[columns]\nanswer = 3", "columns is {'answer': 3}", "give a table of texts"),
        ("config = 3", "config is 3", "give a text"),
        ("files = { test = [3] }", "files is {'test': [3]}", "give a table of texts"),
        ('files = { a = "*.parquet" }', "has no split 'test'", "tell in [splits] which of its own"),
        ('dataset = "/"', "dataset is '/'", "such as org/name"),
        ('dataset = ""', "dataset is ''", "such as org/name"),
        ('files = { test = "/b/*" }', "files is '/b/*': Non-relative", "from `data` on"),
        ('files = { test = [""] }', "files is ['']: Unacceptable", "from `data` on"),
        ('files = { test = "b/*" }', "has no parquet file of test", "name its files"),
        ('dataset = "a/b"\nfiles = { test = "*" }', "dataset and files are both given", "keep one"),
        ('[columns]\nanswer = "gold"\n[splits]\ntest = "t/est"', "'t/est' is no split", "give its splits"),
    ],
)
def test_a_toml_at_fault_is_refused_with_a_way_on(tmp_path: Path, toml: str, what: str, way_on: str) -> None:
    write_parquet(tmp_path / "test.parquet", {"question": ["x"], "gold": ["y"], "image": ["a.png"]})
    with pytest.raises(UsageRefusal) as refused:
        open_task(with_toml(tmp_path, f'reader = "hub"\n{toml}')).split("test")
    assert what in refused.value.what
    assert way_on in refused.value.way_on


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(Refusal, match=f"^{tmp_path}: "):
        open_task(with_toml(tmp_path, 'reader = "hub"')).split("test")
    assert capfd.readouterr().err == ""


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test.parquet").touch()
    task = open_task(with_toml(tmp_path, 'reader = "hub"'))
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", None)
    with pytest.raises(Refusal, match="needs the library datasets, which is not installed") as refused:
        task.split("test")
    assert refused.value.way_on == "pip install 'pamctl[hub-data]'"


TOLD = """
import json, sys
from pamctl.refusal import Refusal
from pamctl.tasks import open_task

for toml in sys.argv[1:]:
    try:
        task = open_task(toml)
        test = task.split("test")
        said = {"notes": task.notes, "n": len(test), "size": test[0].load_images()[0].size}
    except Refusal as refusal:
        said = {"what": refusal.what, "way_on": refusal.way_on}
    print(json.dumps(said))
"""


def told(tomls: list[Path], **environment: str) -> list[dict[str, Any]]:
    """What a new process says of some tasks: the libraries read where the Hub is when they are imported."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *map(str, tomls)],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_data_on_the_hub_at_one_commit_kept_for_when_it_is_out_of_reach(tmp_path: Path) -> None:
    write_splits(tmp_path / "repository")
    files = {
        str(file.relative_to(tmp_path / "repository")): file.read_bytes()
        for file in (tmp_path / "repository").rglob("*.parquet")
    }
    with serve() as hub:
        commit = hub.repository("datasets/ann/asked").commit(files)
        cases = {
            "branch": 'dataset = "ann/asked"',
            "pinned": f'dataset = "ann/asked"\nrevision = "{commit}"',
            "split": 'dataset = "ann/asked"\n[splits]\ntest = "validation"',
            "config": 'dataset = "ann/asked"\nconfig = "other"',
            "revision": 'dataset = "ann/asked"\nrevision = "v2"',
        }
        for name, toml in cases.items():
            (tmp_path / f"{name}.toml").write_text(f'reader = "hub"\n{toml}')
        tomls = [tmp_path / f"{name}.toml" for name in cases]
        where = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        branch, pinned, *refused = told(tomls, **where)
    note = f'ann/asked may change: what is read now is revision = "{commit}"'
    assert branch == {"notes": [note], "n": 2, "size": [16, 12]}
    assert pinned == {"notes": [], "n": 2, "size": [16, 12]}
    assert "ann/asked has no split 'validation'" in refused[0]["what"]
    assert "train, test" in refused[0]["way_on"]
    assert "BuilderConfig 'other' not found" in refused[1]["what"]
    assert "Revision 'v2' doesn't exist" in refused[2]["what"]
    (offline,) = told([tmp_path / "pinned.toml"], **where, HF_HUB_OFFLINE="1")
    assert offline == pinned
