"""`pamctl train-task` as a user meets it: streams, exit codes, signals, a killed process."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pamctl.adapters import open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.training import train_task
from tests.in_haste import compiled_in_haste
from tests.training_cases import write_base, write_task

WEIGHTS = "adapter_model.safetensors"
STEPS, FLAGS = 30, ["--batch-size", "4", "--lr", "0.02"]


# A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
PAMCTL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from pamctl.cli.main import run; run()"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_base(folder / "base")
    write_task(folder)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A compile cache where a user has it, so that the second process starts at once."""
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**inherited, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def unbroken(inputs: Path) -> bytes:
    """The weights of a run that nothing stopped."""
    out = train_task(
        inputs / "colours.jsonl",
        inputs / "unbroken",
        base=str(inputs / "base"),
        steps=STEPS,
        batch_size=4,
        learning_rate=0.02,
    )
    return (out / WEIGHTS).read_bytes()


@pytest.fixture
def started(inputs: Path, environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    def start(out: Path, *flags: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            PAMCTL,
            "train-task",
            str(inputs / "colours.jsonl"),
            "-o",
            str(out),
        ]
        given = ["--base", str(inputs / "base"), "--steps", str(STEPS), *FLAGS, *flags]
        return subprocess.Popen(
            [*command, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    return start


def wait_for_checkpoint(out: Path, step: int) -> None:
    folder = out.with_name(out.name + ".checkpoints") / "steps" / "records"
    until = time.monotonic() + 120
    while not any((folder / f"{later}.json").exists() for later in range(step, STEPS)):
        assert time.monotonic() < until, "no checkpoint came"
        time.sleep(0.01)


def test_sigterm_saves_and_exits_75(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path, unbroken: bytes
) -> None:
    out = tmp_path / "out"
    process = started(out, "--checkpoint-every", "1")
    wait_for_checkpoint(out, 2)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 75
    assert stdout == ""
    assert stderr.splitlines()[-2].startswith("Error: stopped after step")
    assert stderr.splitlines()[-1] == "Hint: run the same command with --resume"
    process = started(out, "--resume", "--json")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    record = json.loads(stdout)
    assert record["schema"] == "pamctl.train-task/1"
    assert record["output"] == str(out)
    assert record["fingerprint"] == open_adapter(out).fingerprint
    assert (out / WEIGHTS).read_bytes() == unbroken


def test_an_interrupt_exits_130(started: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(out, "--checkpoint-every", "1")
    wait_for_checkpoint(out, 2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "Interrupted"
    assert not out.exists()


def invoked(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command run in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = exit_code_of(lambda: pamctl(["train-task", *arguments], standalone_mode=False))
    return code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "ewc"],
        ["--scope", "layer"],
        ["--init", "global"],
        ["--steps", "1", "--epochs", "1"],
        ["--top-p", "101"],
        ["--align-every", "inf"],
        ["--term", "ewc"],
        ["--replay", "sometimes"],
        ["another.jsonl"],
        ["--lr", "fast"],
        ["--checkpoint-every", "0"],
        ["--resume", "--force"],
        ["--no-such-flag"],
    ],
)
def test_a_wrong_option_exits_2_before_anything_is_read(tmp_path: Path, flags: list[str]) -> None:
    code, stdout, stderr = invoked("nothing.jsonl", "-o", str(tmp_path / "out"), *flags)
    assert (code, stdout) == (2, "")
    assert stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_plan_and_writes_nothing(inputs: Path, tmp_path: Path) -> None:
    given = [str(inputs / "colours.jsonl"), "-o", str(tmp_path / "out"), "--base", str(inputs / "base")]
    code, stdout, stderr = invoked(*given, "--dry-run", "--steps", "5", *FLAGS)
    assert (code, stdout) == (0, "")
    assert "252 weights to train" in stderr
    assert "learning_rate    0.02" in stderr
    # five steps of a batch of <bos> q q "\\n" a <eos> after four image tokens
    assert re.search(
        r"5 steps, 200 tokens, 1 devices\non each device \S+ MB of \S+ GB, fits: weights", stderr
    )
    code, stdout, _ = invoked(*given, "--dry-run", "--steps", "5", *FLAGS, "--json")
    plan = json.loads(stdout)
    assert plan["schema"] == "pamctl.train-task-plan/1"
    assert plan["configuration"]["steps"] == 5
    assert (plan["examples"], plan["tokens"], plan["devices"]) == (10, 200, 1)
    assert plan["memory"]["fits"] is True
    assert plan["memory"]["needed"] == sum(
        plan["memory"][part] for part in ("weights", "adapter", "optimizer", "batch", "activations")
    )
    assert not list(tmp_path.iterdir())


def test_an_unreadable_image_is_told_by_line_and_id(inputs: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "task")
    (tmp_path / "task" / "colours-3.png").write_bytes(b"no picture")
    code, stdout, stderr = invoked(str(task), "-o", str(tmp_path / "out"), "--base", str(inputs / "base"))
    assert (code, stdout) == (1, "")
    assert "line 4 (id colours-3)" in stderr
    assert not (tmp_path / "out").exists()


def test_a_base_in_four_bits_is_recorded_and_shown_on_a_board(inputs: Path, tmp_path: Path) -> None:
    out, board = tmp_path / "out", tmp_path / "board"
    with compiled_in_haste():
        code, stdout, stderr = invoked(
            *(str(inputs / "colours.jsonl"), "-o", str(out), "--base", str(inputs / "base"), "--steps", "2"),
            *("--batch-size", "2", "--quantize", "nf4", "--dtype", "bf16", "--tensorboard", str(board)),
        )
    assert (code, stdout) == (0, f"{out}\n"), stderr
    parameters = json.loads((out / "pamctl.json").read_text())["parameters"]
    assert (parameters["quantize"], parameters["dtype"]) == ("nf4", "bf16")
    assert [file.name.startswith("events") for file in board.iterdir()] == [True]


def test_a_mixture_of_experts_is_told_as_json(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with compiled_in_haste():
        code, stdout, stderr = invoked(
            *(str(inputs / "colours.jsonl"), "-o", str(out), "--base", str(inputs / "base"), "--steps", "1"),
            *(*FLAGS, "--method", "moelora", "--experts", "3", "--json"),
        )
    assert code == 0, stderr
    record = json.loads(stdout)
    assert (record["output"], record["method"]) == (str(out), "moelora")
    assert record["fingerprint"] == open_adapter(out, routers=True).fingerprint


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--accumulate", "3", "--batch-size", "4"), "--accumulate 3 does not divide the batch size 4"),
        (("--fsdp", "2"), "fsdp 2 does not divide 1 devices"),
        (("--keep-checkpoints", "0"), "--keep-checkpoints"),
        (("--distributed", "on"), "SLURM"),
    ],
)
def test_what_the_devices_cannot_do_is_a_usage_error(
    inputs: Path, tmp_path: Path, option: tuple[str, ...], told: str
) -> None:
    given = (str(inputs / "colours.jsonl"), "-o", str(tmp_path / "out"), "--base", str(inputs / "base"))
    code, stdout, stderr = invoked(*given, "--steps", "1", *option)
    assert (code, stdout) == (2, "")
    assert told in stderr
    assert not (tmp_path / "out").exists()
