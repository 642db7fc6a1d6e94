"""`pamctl tasks`: list, show and check."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pamctl.cli.errors import exit_code_of
from pamctl.cli.picture import print_picture
from pamctl.cli.tasks import tasks
from pamctl.tasks.embedded import embedded_tasks

Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return exit_code_of(lambda: tasks.main(list(arguments), standalone_mode=False))


def test_list_names_every_embedded_task(capsys: Capture) -> None:
    assert run("list", "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["schema"] == "pamctl.tasks/1"
    assert [task["name"] for task in payload["tasks"]] == list(embedded_tasks())
    assert run("list") == 0
    table = capsys.readouterr().out
    assert all(name in table for name in embedded_tasks())


def test_show_prints_the_example_and_draws_it(capsys: Capture) -> None:
    example = embedded_tasks()["tiny-gqa"].split("test")[3]
    assert run("show", "tiny-gqa", "--index", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["id:      3", f"prompt:  {example.prefix}", f"answers: {example.suffix}"]
    assert len(lines) == 3 + 16


def test_show_saves_the_image_and_prints_only_its_path(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "example.png"
    assert run("show", "tiny-gqa", "--save", str(file)) == 0
    assert capsys.readouterr().out == f"{file}\n"
    example = embedded_tasks()["tiny-gqa"].split("test")[0]
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(example.load_images()[0]))
    assert run("show", "tiny-gqa", "--save", str(file)) == 1
    assert run("show", "tiny-gqa", "--index", "400") == 2
    assert "has 400 examples" in capsys.readouterr().err


def test_a_picture_is_half_blocks_in_colour_and_shades_without() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0]] * 4, [[0, 0, 255]] * 4] * 2, np.uint8))
    coloured, plain = io.StringIO(), io.StringIO()
    print_picture(image, Console(file=coloured, color_system="truecolor", force_terminal=True, width=80))
    print_picture(image, Console(file=plain, color_system=None, width=80))
    assert coloured.getvalue().count("38;2;255;0;0;48;2;0;0;255m▀") in (2, 2 * 4)
    assert [len(line) for line in plain.getvalue().splitlines()] == [4, 4]


def test_check_exits_by_what_it_finds(tmp_path: Path, capsys: Capture) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    file = tmp_path / "t.jsonl"
    row = {"image": "a.png", "question": "q", "answer": "a", "split": "train"}
    file.write_text(json.dumps(row))
    assert run("check", str(file)) == 0
    assert capsys.readouterr().out.splitlines()[::4] == ["t.jsonl: train 1", "sound"]
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"split": "test"}) + "\n")
    assert run("check", str(file)) == 1
    assert "error: 1 examples of test have an image and prompt of train: 2" in capsys.readouterr().out
    assert run("check", str(file), "--json") == 1
    payload = json.loads(capsys.readouterr().out)
    assert (payload["ok"], payload["splits"], len(payload["errors"])) == (False, {"train": 1, "test": 1}, 1)
    assert run("check", "tiny-nothing") == 2
