"""Job files: scripts of real commands, each after what it needs, queued again when preempted."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pamctl.cli.main import pamctl
from pamctl.sequences.job_files import Cluster
from pamctl.sequences.run import emit_jobs
from tests.sequence_cases import write_sequence
from tests.training_cases import write_task


@pytest.fixture
def sequence(tmp_path: Path) -> str:
    for name in ("colours", "shapes"):
        write_task(tmp_path / name, name)
    return str(write_sequence(tmp_path, '["average", "magmax", { name = "lwf", term = ["lwf:weight=2"] }]'))


def commands(script: str) -> Iterator[list[str]]:
    """The commands of a script without the program's name."""
    for line in script.splitlines():
        match = re.search(r"(?:^|\|\| |srun )pamctl (.*?)(?: \|\| leave \$\?)?$", line)
        if match:
            yield shlex.split(match[1])


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("cluster", ["slurm", "skypilot"])
def test_jobs_are_scripts_of_commands_that_there_are(cluster: Cluster, sequence: str, tmp_path: Path) -> None:
    submit = emit_jobs(sequence, tmp_path / "the out", cluster)
    subprocess.run(["bash", "-n", submit], check=True)
    if cluster == "slurm":
        scripts = [file.read_text() for file in submit.parent.glob("*.sh") if file != submit]
    else:
        jobs = [yaml.safe_load(file.read_text()) for file in submit.parent.glob("*.yaml")]
        assert all({*job} == {"name", "workdir", "setup", "run"} for job in jobs)
        assert len({job["name"] for job in jobs}) == len(jobs)
        scripts = [job["run"] for job in jobs]
    told = []
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        told += [*commands(script)]
    assert {words[0] for words in told} - {"run"} == {"align", "eval", "merge", "train-task"}
    for name, *words in told:
        pamctl.commands[name].make_context(name, words)  # click refuses an option that there is not


def test_slurm_jobs_wait_for_what_they_need_and_are_queued_again_when_preempted(
    sequence: str, tmp_path: Path
) -> None:
    """With an `sbatch` that writes down what it is told, and an `srun` that is preempted."""
    submit = emit_jobs(sequence, tmp_path / "out", "slurm")
    program(
        tmp_path / "bin" / "sbatch", f'echo "$@" >> {tmp_path}/told; echo "$(wc -l < {tmp_path}/told);here"'
    )
    program(tmp_path / "bin" / "srun", "exit 75")
    program(tmp_path / "bin" / "scontrol", f'echo "$@" >> {tmp_path}/queued')
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    subprocess.run(["bash", submit, "--gpus=1"], env=environment, check=True, capture_output=True)
    assert (tmp_path / "told").read_text().splitlines() == [
        "--parsable --gpus=1 zero-shot.sh",
        "--parsable --gpus=1 one_seed-0_first.sh",
        "--parsable --dependency=afterok:2 --gpus=1 one_seed-0_average.sh",
        "--parsable --dependency=afterok:2 --gpus=1 one_seed-0_magmax.sh",
        "--parsable --dependency=afterok:2 --gpus=1 one_seed-0_lwf.sh",
        "--parsable --dependency=afterany:1:2:3:4:5 --gpus=1 report.sh",
    ]
    stopped = subprocess.run(["bash", submit.with_name("one_seed-0_lwf.sh")], env=environment, check=False)
    assert stopped.returncode == 75
    assert (tmp_path / "queued").read_text() == "requeue 7\n"


def test_skypilot_waits_for_what_several_jobs_need(sequence: str, tmp_path: Path) -> None:
    text = emit_jobs(sequence, tmp_path / "out", "skypilot").read_text()
    launches = [shlex.split(line) for line in text.splitlines() if line.startswith("sky ")]
    assert [(Path(words[-1]).stem, "-d" in words) for words in launches] == [
        ("zero-shot", True),
        ("one_seed-0_first", False),
        ("one_seed-0_average", True),
        ("one_seed-0_magmax", True),
        ("one_seed-0_lwf", True),
    ]
