"""Adapters fetched from a Hub and pushed to it by the commands, with the real client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pamctl.adapters import open_adapter, save_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.train_task import train_task
from tests.adapter_cases import child_of, random_adapter, saved
from tests.hub_server import Fault, Hub, serve
from tests.training_cases import write_base

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with org/first and org/second, trained from it; the working folder is empty."""
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "1")
    saved(child_of(first, seed=1, tasks=("a", "b")), tmp_path / "2")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serve() as served:
        for folder, name in (("1", "org/first"), ("2", "org/second")):
            files = {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
            served.repository(name).commit(files)
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield served


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "pamctl", *arguments], capture_output=True, text=True, timeout=100
    )
    assert "Traceback" not in ended.stderr
    assert "hf_" not in ended.stdout + ended.stderr
    return ended


def commits(hub: Hub, name: str) -> list[str]:
    return [request.path for request in hub.asked("POST", f"/{name}/commit/")]


def test_a_merge_from_the_hub_to_the_hub(hub):
    ended = run("merge", "hf://org/first", "org/second", "-o", "merged", "--push-to", "org/merged", "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    commit = hub.repository("org/merged").references["main"]
    assert told["pushed"] == f"{hub.endpoint}/org/merged/commit/{commit}"
    assert told["output"] == "merged"
    assert f"pushed to {told['pushed']}\n" in ended.stderr
    pushed = hub.repository("org/merged").commits[commit]
    assert pushed == {file.name: file.read_bytes() for file in Path("merged").iterdir()}
    parents = json.loads(pushed["pamctl.json"])["parents"]
    assert [parent["name"] for parent in parents] == ["org/first", "org/second"]
    assert [parent["commit"] for parent in parents] == [
        hub.repository(name).references["main"] for name in ("org/first", "org/second")
    ]


def test_an_alignment_needs_an_output_to_push(hub):
    ended = run("align", "org/second", "--to", "org/first", "-o", "aligned", "--push-to", "org/aligned")
    assert (ended.returncode, ended.stdout) == (0, "aligned\n"), ended.stderr
    assert WEIGHTS in hub.repository("org/aligned").commits[hub.repository("org/aligned").references["main"]]
    ended = run("align", "org/second", "--to", "org/first", "--push-to", "org/aligned")
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: --push-to without an output\nHint: add -o")


def test_a_single_file_is_pushed_with_its_card(hub):
    ended = run("convert", "org/first", "-o", "x.safetensors", "--format", "kohya", "--push-to", "org/single")
    assert (ended.returncode, ended.stdout) == (0, "x.safetensors\n"), ended.stderr
    pushed = hub.repository("org/single").commits[hub.repository("org/single").references["main"]]
    assert set(pushed) == {"x.safetensors", "README.md"}
    assert ModelCard(pushed["README.md"].decode()).data.library_name == "pamctl"
    fetched = json.loads(run("inspect", "org/single", "--json").stdout)["adapter"]
    assert fetched["fingerprint"] == open_adapter("x.safetensors").fingerprint


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("peft", "mlx"), ("peft", "kohya"), ("kohya", "diffusers"), ("mlx", "peft"), ("peft", "orbax"),
     ("orbax", "peft")],
)  # fmt: skip
def test_what_is_pushed_takes_the_place_of_another_format(hub, tmp_path, earlier, later):
    others = {
        "LICENSE": b"mine",
        "images/1.png": b"x",
        "v1/adapter_config.json": b"{}",
        ".gitattributes": b"*",
    }
    save_adapter(random_adapter(seed=5), folder := made(tmp_path / "earlier"), earlier)
    hub.repository("org/name").commit({**files_of(folder), **others})
    ended = run("convert", "org/first", "-o", "out", "--format", later, "--push-to", "org/name")
    assert ended.returncode == 0, ended.stderr
    assert hub.repository("org/name").commits[hub.repository("org/name").references["main"]] == {
        **files_of(Path("out")), **others,
    }  # fmt: skip


def test_a_single_file_beside_another_adapter_is_refused_with_what_is_in_its_way(hub):
    before = hub.repository("org/first").references["main"]
    ended = run("convert", "org/second", "-o", "x.safetensors", "--format", "kohya", "--push-to", "org/first")
    assert ended.returncode == 1
    what, way_on = ended.stderr.splitlines()[-2:]
    assert what == (
        f"Error: org/first holds {WEIGHTS}, which would be read in place of the new adapter; "
        "x.safetensors stands complete"
    )
    assert way_on.endswith("then run hf upload org/first x.safetensors")
    assert hub.repository("org/first").references["main"] == before


def test_a_dry_run_says_that_it_would_push_and_does_not(hub, tmp_path):
    base = str(write_base(tmp_path / "base"))
    for arguments in (
        ("merge", "org/first", "org/second", "-o", "out"),
        ("align", "org/second", "--to", "org/first", "-o", "out"),
        ("train-task", "tiny-scienceqa", "--base", base, "-o", "out"),
    ):
        ended = run(*arguments, "--push-to", "org/out", "--dry-run")
        assert ended.returncode == 0, ended.stderr
        assert "would push to org/out on the Hub\n" in ended.stderr
    assert "org/out" not in hub.repositories
    assert not Path("out").exists()


def test_what_the_hub_would_not_take_is_refused_before_any_work(hub, monkeypatch):
    ended = run("merge", "org/first", "org/second", "-o", "out", "--push-to", "no name")
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: no name is not a name on the Hub\nHint: ")
    monkeypatch.delenv("HF_TOKEN")
    ended = run("merge", "org/first", "org/second", "-o", "out", "--push-to", "org/out")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 2)
    assert "not logged in" in ended.stderr
    assert not [request for request in hub.requests if "org/" in request.path]
    assert not Path("out").exists()


def test_a_push_that_fails_leaves_the_output_and_says_how_to_push_it(hub):
    hub.may_write = False
    ended = run("merge", "org/first", "org/second", "-o", "merged", "--push-to", "org/merged")
    assert ended.returncode == 1
    what, way_on = ended.stderr.splitlines()[-2:]
    assert what == "Error: you may not write to org/merged; merged stands complete"
    assert way_on.endswith("then run hf upload org/merged merged")
    assert open_adapter("merged").rank == 4


def test_a_gated_adapter_is_two_lines(hub):
    hub.faults.append(Fault("HEAD", WEIGHTS, status=403, headers={"X-Error-Code": "GatedRepo"}))
    ended = run("inspect", "org/first")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "Error: org/first is gated on the Hub\n"
        f"Hint: accept its licence at {hub.endpoint}/org/first, then run hf auth login\n"
    )


@pytest.mark.parametrize("options", [[], ["--target", "peft"]], ids=["open", "check"])
def test_a_damaged_file_is_told_by_its_place_on_the_hub(hub, options):
    hub.repository("org/broken").commit({"sub/x.safetensors": b"no tensors"}, "v1")
    ended = run("inspect", "org/broken@v1/sub/x.safetensors", *options)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: org/broken@v1/sub/x.safetensors: a header of ")


def test_what_was_trained_is_pushed(tmp_path, monkeypatch, capsys):
    saved(random_adapter(tasks=("a",)), tmp_path / "trained")
    pushed = []

    def push(folder: Path, repository: str, message: str, _: object, card: str | None) -> str:
        pushed.append((folder, repository, message, card))
        return "https://hub/commit/1"

    monkeypatch.setattr("pamctl.training.train_task", lambda *_, **__: tmp_path / "trained")
    monkeypatch.setattr("pamctl.hub.refuse_no_token", lambda: None)
    monkeypatch.setattr("pamctl.hub.push", push)
    arguments = ["a", "-o", str(tmp_path / "trained"), "--push-to", "org/trained", "--json"]
    assert exit_code_of(lambda: train_task.main(arguments, standalone_mode=False)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["pushed"] == "https://hub/commit/1"
    assert err.endswith("pushing to org/trained ...\npushed to https://hub/commit/1\n")
    assert pushed == [
        (tmp_path / "trained", "org/trained", "Adapter written by pamctl train-task", None),
    ]
