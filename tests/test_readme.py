"""README is true: every command in it runs, and CI runs the one that tests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
INSTALL_AND_RUN, INSTALL_AND_TEST, *OTHERS = BLOCKS


def run(script: str, folder: Path) -> str:
    (folder / "fixtures").exists() or (folder / "fixtures").symlink_to(ROOT / "fixtures")
    script = f'PATH="{Path(sys.executable).parent}:$PATH"\n{script}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_command_is_the_demo(tmp_path: Path) -> None:
    install, demo = INSTALL_AND_RUN.strip().split(" && ")
    assert install == "pip install ."
    run(demo, tmp_path)
    assert (tmp_path / "pamctl-demo" / "results.jsonl").is_file()


def test_ci_runs_the_second_command_as_it_stands() -> None:
    assert INSTALL_AND_TEST.strip() in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the blocks run one after the other, as a reader would."""
    folder = tmp_path_factory.mktemp("reader")
    for block in OTHERS:
        run(block, folder)
    return folder


def test_every_other_command_runs_in_order(home: Path) -> None:
    assert (home / "runs" / "report" / "report.md").is_file()
    assert (home / "both" / "adapter_model.safetensors").is_file()
    assert (home / "mine" / "answers.jsonl").read_text().count("\n") == 2


def test_the_python_runs(home: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=True)


def test_every_command_is_in_the_table() -> None:
    from pamctl.cli.main import pamctl

    for name in pamctl.commands:
        assert f"| `pamctl {name}" in README
