"""README's shell chain runs as it stands; killed anywhere and run again it ends as if nothing had been."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
KILLS = 2


def chain() -> str:
    """The block under "Learn task after task", with runs as short as they can be."""
    (block,) = re.findall(r"## Learn task after task\n+```sh\n(.*?)```", README, re.DOTALL)
    assert block.startswith("set -euo pipefail\n")
    block = re.sub(r"pamctl train-task", r"\g<0> --steps 12 --checkpoint-every 4", block)
    return re.sub(r"pamctl eval", r"\g<0> --limit 4", block)


@dataclass(frozen=True)
class Run:
    """An unbroken run: its folder, what it printed, how long it took, compiling what later runs find."""

    folder: Path
    stdout: str
    seconds: float


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def started(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The chain in a process group of its own."""
    with (folder / "stderr").open("a") as stderr:
        return subprocess.Popen(
            ["bash", "-c", chain()],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Run:
    folder, before = tmp_path_factory.mktemp("unbroken"), time.monotonic()
    process = started(folder, environment)
    stdout, _ = process.communicate()
    assert process.returncode == 0, (folder / "stderr").read_text()
    return Run(folder, stdout, time.monotonic() - before)


def metrics(folder: Path) -> object:
    return json.loads((folder / "runs" / "report" / "metrics.json").read_text())


def test_stdout_is_one_path_or_one_object_a_command(unbroken: Run) -> None:
    lines = unbroken.stdout.splitlines()
    assert lines == [*["runs/results.jsonl"] * 6, "runs/report"]
    assert all((unbroken.folder / line).exists() for line in lines)
    assert (unbroken.folder / "runs" / "report" / "report.md").is_file()
    for task in ("textvqa", "gqa"):
        (line,) = (unbroken.folder / "runs" / f"{task}-conflicts.json").read_text().splitlines()
        assert json.loads(line)["schema"] == "pamctl.align/1"


def test_killed_anywhere_and_run_again_it_ends_the_same(
    unbroken: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    draws, seconds = random.Random(0), unbroken.seconds / 2
    for number in range(KILLS):
        process = started(tmp_path, environment)
        try:
            process.wait(seconds * (number + draws.random()) / KILLS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for config in tmp_path.glob("runs/[!.]*/adapter_config.json"):
            inspected(config.parent, environment)
    process = started(tmp_path, environment)
    process.communicate()
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    for adapter in ("scienceqa", "textvqa", "textvqa-merged", "gqa", "gqa-merged"):
        for file in (unbroken.folder / "runs" / adapter).iterdir():
            assert (tmp_path / "runs" / adapter / file.name).read_bytes() == file.read_bytes()
    assert metrics(tmp_path) == metrics(unbroken.folder)
    visible = {path.name for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")}
    assert visible == {path.name for path in (unbroken.folder / "runs").iterdir()}


def inspected(adapter: Path, environment: dict[str, str]) -> None:
    command = ["pamctl", "inspect", str(adapter), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "pamctl.inspect/1"
