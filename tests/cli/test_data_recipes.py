"""README's two ways to data, as a stranger goes them: ten lines and pictures of one's own, and CoIN."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.tasks.release_cases import RELEASES, script
from tests.training_cases import write_base
from tests.warm_pamctl import Done, WarmPamctl

COIN = ("scienceqa", "textvqa", "gqa", "vizwiz", "vqav2", "ocrvqa")
SMALL = "text_length = 128\n[subsample]\ntrain = 2\ntest = 1\n"
"""One length for all, so that a step is compiled once."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a base in it."""
    folder = tmp_path_factory.mktemp("recipes")
    write_base(folder / "base")
    return folder


def run(warm: WarmPamctl, place: Path, command: str) -> Done:
    """Run a command line that is to succeed."""
    done = warm(*command.split(), cwd=place)
    assert done.code == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def write_strangers_data(folder: Path) -> None:
    """Ten lines as people write them, with pictures as people have them."""
    photos = folder / "my photos"
    photos.mkdir(parents=True)
    lines = []
    for number, ending in enumerate(
        ("jpg", "JPG", "png", "gif", "bmp", "webp", "tiff", "jpeg", "png", "png")
    ):
        name = f"Bild {number} – ä.{ending}"
        mode = {2: "RGBA", 3: "P", 8: "L", 9: "LA"}.get(number, "RGB")
        script("drawing").picture(number, (20 + number, 9)).convert(mode).save(photos / name)
        answer = {"answers": ["a", "b c"]} if number % 3 == 0 else {"answer": "ça"}
        lines.append({"image": f"my photos/{name}", "question": f"a b {number} ?", **answer})
    text = "\r\n".join(json.dumps(line, ensure_ascii=number % 2 == 0) for number, line in enumerate(lines))
    (folder / "photos.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())


def test_ten_lines_of_ones_own_work_at_the_first_try(warm: WarmPamctl, place: Path) -> None:
    write_strangers_data(place / "mine")
    checked = run(warm, place, "tasks check mine/photos.jsonl --json")
    assert json.loads(checked.stdout)["splits"] == {"train and test": 10}
    assert json.loads(checked.stdout)["images"] == {"distinct": 10, "decoded": 10}
    shown = run(warm, place, "tasks show mine/photos.jsonl --index 3 --save shown.png")
    assert "a b 3 ?" in shown.stderr
    with Image.open(place / "shown.png") as image:
        assert image.size == (23, 9)
    settings = "--steps 2 --batch-size 4"
    trained = run(warm, place, f"train-task mine/photos.jsonl --base base {settings} -o mine/adapter")
    assert trained.stdout == "mine/adapter\n"
    command = "eval mine/adapter --task mine/photos.jsonl --base base --predictions mine/answers.jsonl --json"
    (result,) = json.loads(run(warm, place, command).stdout)["results"]
    assert (result["task"], result["n"]) == ("photos", 10)
    assert len((place / "mine" / "answers.jsonl").read_text().splitlines()) == 10


def test_coin_from_its_folder_to_the_report(warm: WarmPamctl, place: Path) -> None:
    shutil.copytree(RELEASES / "coin", place / "coin")
    (place / "tasks").mkdir()
    for task in COIN:
        toml = f'reader = "coin"\ntask = "{task}"\ndata = "../coin"\n{SMALL}'
        (place / "tasks" / f"{task}.toml").write_text(toml)
        checked = json.loads(run(warm, place, f"tasks check tasks/{task}.toml --json").stdout)
        assert (checked["task"], checked["errors"]) == (task, [])
    run(warm, place, "run coin-1 --data tasks --base base -o runs/coin-1 --only method=finetune")
    metrics = json.loads((place / "runs" / "coin-1" / "report" / "metrics.json").read_text())
    (comparison,) = metrics["comparisons"]
    assert comparison["tasks"] == list(COIN)
    (of,) = comparison["sequences"]
    assert not of["missing"]
    assert (place / "runs" / "coin-1" / "report" / "index.html").is_file()
