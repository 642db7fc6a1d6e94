"""README is true: every command in it runs, and CI runs the one that tests."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pamctl.cli.train_task import train_task
from pamctl.tasks.readers import readers
from pamctl.tasks.task_file import read_task_file
from pamctl.training.methods import METHODS, Method
from tests.hub_server import Hub, serve

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
INSTALL_AND_RUN, INSTALL_AND_TEST, CHAIN, *OTHERS = BLOCKS
LEFT_BY_THE_CHAIN = {
    "scienceqa": "order-1/seed-0/first/1-tiny-scienceqa/trained",
    "textvqa": "order-1/seed-0/pam/2-tiny-textvqa/trained",
    "gqa": "order-1/seed-0/pam/3-tiny-gqa/trained",
}
"""The adapters in `runs` that other blocks read, and where the demo makes the same."""


def run(script: str, folder: Path, **environment: str) -> str:
    (folder / "fixtures").exists() or (folder / "fixtures").symlink_to(ROOT / "fixtures")
    script = f'PATH="{Path(sys.executable).parent}:$PATH"\n{script}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's first command leaves, after the installation that the tests run in."""
    install, command = INSTALL_AND_RUN.strip().split(" && ")
    assert install == "pip install ."
    folder = tmp_path_factory.mktemp("first-command")
    run(command, folder)
    return folder / "pamctl-demo"


def test_the_demo_shows_that_merging_forgets_far_less_than_fine_tuning(demo: Path) -> None:
    (comparison,) = json.loads((demo / "report" / "metrics.json").read_text())["comparisons"]
    mean = {
        system["system"]: {name: spread["mean"] for name, spread in system["metrics"].items()}
        for system in comparison["systems"]
    }
    for merging in ("average", "pam"):
        assert mean[merging]["BWT"] > mean["finetune"]["BWT"] + 10
        assert mean[merging]["ACC"] > mean["finetune"]["ACC"]
    for metrics in mean.values():
        assert metrics["BWT"] * 5 / 6 == pytest.approx(metrics["ACC"] - metrics["A_m"], abs=1e-9)


def test_the_demo_shows_that_alignment_lowers_conflict(demo: Path) -> None:
    differ = {
        method: [
            json.loads(file.read_text())["conflicts"]["overall"]["differ_percent"]
            for file in sorted((demo / "order-1" / "seed-0" / method).glob("*/trained/pamctl.json"))
        ]
        for method in ("average", "pam")
    }
    assert len(differ["pam"]) == len(differ["average"]) == 5
    assert sum(differ["pam"]) < sum(differ["average"])


def test_ci_runs_the_second_command_as_it_stands() -> None:
    assert INSTALL_AND_TEST.strip() in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A Hub with the two repositories that README fetches from."""
    adapters = ROOT / "fixtures" / "adapters"
    with serve() as hub:
        vqa = {file.name: file.read_bytes() for file in (adapters / "peft").iterdir()}
        ocr = {f"ocr/{file.name}": file.read_bytes() for file in (adapters / "peft-5").iterdir()}
        hub.repository("ann/paligemma-vqa-lora").commit(vqa)
        hub.repository("bob/loras").commit(ocr, "v1")
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, hub: Hub, demo: Path) -> Path:
    """A folder in which the blocks run one after the other, as a reader would.

    The chain, which takes the longest, has been run there: its own tests are in test_chain.py.
    """
    folder = tmp_path_factory.mktemp("reader")
    for name, made in LEFT_BY_THE_CHAIN.items():
        assert f"runs/{name}" in CHAIN.replace("$task", name)
        shutil.copytree(demo / made, folder / "runs" / name)
    cache = str(tmp_path_factory.mktemp("hub-cache"))
    for block in OTHERS:
        run(
            block, folder, HF_ENDPOINT=hub.endpoint, HF_HOME=cache, HF_TOKEN=hub.token, HF_HUB_DISABLE_XET="1"
        )
    return folder


def test_every_other_command_runs_in_order(home: Path) -> None:
    assert (home / "both" / "adapter_model.safetensors").is_file()
    assert (home / "of-three-formats" / "adapter_model.safetensors").is_file()
    assert (home / "mine" / "answers.jsonl").read_text().count("\n") == 3


def test_what_readme_pushes_arrives_on_the_hub(home: Path, hub: Hub) -> None:
    pushed = hub.repository("ann/vqa-and-ocr")
    files = pushed.commits[pushed.references["main"]]
    assert files.keys() >= {"adapter_config.json", "adapter_model.safetensors", "pamctl.json", "README.md"}
    parents = json.loads(files["pamctl.json"])["parents"]
    assert [parent["name"] for parent in parents] == ["ann/paligemma-vqa-lora", "bob/loras"]
    assert parents[1]["commit"] == hub.repository("bob/loras").references["v1"]


def test_the_tables_are_those_of_the_recorded_results() -> None:
    script = ROOT / "fixtures" / "embedded_results" / "tables.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    tables = printed.strip().split("\n\n")
    assert len(tables) == 5
    for table in tables:
        assert table in README


def test_the_python_runs(home: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=home, check=True)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_table_of_methods_tells_how_each_is_merged(method: Method) -> None:
    (row,) = [
        line
        for line in README.splitlines()
        if line.startswith("| `") and f"`{method.name}`" in line.split("|")[1]
    ]
    told = row.split("|")[-2].strip()
    if method.merge is None:
        assert told == ""
        return
    merging = dict(method.merge)
    flags = [
        f"--method {merging.pop('method')}",
        *(f"--set {name}={value}" for name, value in merging.items()),
    ]
    assert told == f"`{' '.join(flags)}`"


def test_the_table_of_readers_tells_prompt_metric_and_split() -> None:
    rows = [line.strip("|").split(" | ") for line in README.splitlines() if line.startswith("| `")]
    told = {row[0].strip(" `"): row[1:] for row in rows if len(row) == 5}
    own = {"coin", "hub", "jsonl"}
    assert told.keys() == readers().keys() - own
    for name, (_, prompt, metric, split) in told.items():
        reader = readers()[name]
        assert metric == f"`{reader.metric}`"
        assert split.strip().partition(",")[0] == reader.splits["test"]
        assert name == "scienceqa" or prompt.startswith(f"`{reader.template}`")
        seen = re.search(r"on (\d+) frames, (\d+) apart", prompt)
        assert ((int(seen[1]), int(seen[2])) if seen else (1, 1)) == (reader.frames, reader.stride)


def test_the_tomls_of_tasks_say_what_a_task_may(tmp_path: Path) -> None:
    tomls = [toml for toml in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "reader" in toml]
    assert len(tomls) == 3
    for toml in tomls:
        (tmp_path / "task.toml").write_text(toml)
        assert read_task_file(tmp_path / "task.toml").table == tomllib.loads(toml)


def test_every_command_is_in_the_table() -> None:
    from pamctl.cli.main import pamctl

    for name in pamctl.commands:
        assert f"| `pamctl {name}" in README


def test_job_files_are_sound_and_their_commands_known(tmp_path: Path) -> None:
    scripts = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (job,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    fields = yaml.safe_load(job)
    assert {"num_nodes", "resources", "setup", "run"} <= fields.keys()
    commands = re.findall(r"pamctl train-task (.*?--resume)", " ".join((*scripts, fields["run"])), re.DOTALL)
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        train_task.make_context("train-task", words)
