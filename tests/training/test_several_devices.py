"""The same run on one device, on eight, with the base sharded, and in two processes: the same numbers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.in_haste import FLAGS

ON_DEVICES = Path(__file__).with_name("on_devices.py")
SETTINGS = "--batch-size 8 --steps 6 --align-every 2 --lr 0.02".split()


def on_devices(count: int, fsdp: int, inputs: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, str(ON_DEVICES), str(count), str(fsdp), str(inputs), str(out)]
    environment = {**os.environ, "XLA_FLAGS": FLAGS}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("alone") / "trained"
    return out, on_devices(1, 1, inputs, out)


def assert_same_run(out: Path, other: Path) -> None:
    """Sums over devices differ in the last bits, nothing else does."""
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (out, other))
    assert ours.keys() == theirs.keys()
    for name, weights in ours.items():
        np.testing.assert_allclose(weights, theirs[name], atol=2e-5, err_msg=name)
    for event, expected in zip(events(out), events(other), strict=True):
        assert event["event"] == expected["event"]
        if event["event"] == "step":
            assert event["loss"] == pytest.approx(expected["loss"], abs=1e-4)


def events(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("fsdp", [1, 4])
def test_eight_devices_with_and_without_a_sharded_base(inputs, tmp_path, alone, fsdp) -> None:
    found = on_devices(8, fsdp, inputs, tmp_path / "trained")
    assert_same_run(tmp_path / "trained", alone[0])
    assert found["score"] == alone[1]["score"]
    layers, outputs, width = alone[1]["part"]
    assert found["part"] == [layers, outputs // fsdp, width]


def pair(*arguments: str) -> list["subprocess.Popen[str]"]:
    """Start a command in two processes with two devices each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{found.getsockname()[1]}"
    command = [sys.executable, "-m", "pamctl", *arguments, "--coordinator", place, "--num-processes", "2"]
    return [
        subprocess.Popen(
            [*command, "--process-id", str(number)],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def train(inputs: Path, out: Path, *more: str) -> list["subprocess.Popen[str]"]:
    places = ["-o", str(out), "--base", str(inputs / "base"), "--global", str(inputs / "first")]
    return pair("train-task", str(inputs / "shapes.jsonl"), *places, *SETTINGS, *more)


def test_two_processes_write_the_adapter_once(inputs, tmp_path, alone) -> None:
    out = tmp_path / "trained"
    main, other = (process.communicate() for process in train(inputs, out, "--checkpoint-every", "2"))
    assert main[0] == f"{out}\n", main[1]
    assert "process 0 of 2, 2 local of 4 CPU devices" in main[1]
    assert other[0] == ""
    assert_same_run(out, alone[0])
    results = tmp_path / "results.jsonl"
    task = ["--task", str(inputs / "shapes.jsonl"), "--split", "train", "--base", str(inputs / "base")]
    for process in pair("eval", str(out), *task, "--results", str(results)):
        _, told = process.communicate()
        assert process.returncode == 0, told
    (result,) = results.read_text().splitlines()
    assert json.loads(result)["score"] == alone[1]["score"]


def test_a_refusal_of_one_process_is_told_by_both(inputs, tmp_path) -> None:
    out = tmp_path / "trained"
    out.mkdir()
    (out / "mine.txt").write_text("not an adapter")
    for process in train(inputs, out, "--force"):
        _, told = process.communicate()
        assert process.returncode == 1, told
        assert "Error: " in told
        assert "Traceback" not in told


def test_sigterm_to_one_process_stops_both_and_resuming_ends_in_the_same_adapter(inputs, tmp_path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "trained"
    long = ("--steps", "160", "--lr", "0.002")
    for process in train(inputs, whole, *long):
        _, told = process.communicate()
        assert process.returncode == 0, told
    stopped = train(inputs, out, *long, "--checkpoint-every", "8")
    records = out.with_name("trained.checkpoints") / "steps" / "records"
    while not any(records.glob("*.json")) and stopped[0].poll() is None:
        time.sleep(0.02)
    stopped[1].send_signal(signal.SIGTERM)
    for process in stopped:
        _, told = process.communicate()
        assert process.returncode == 75, told
    for process in train(inputs, out, *long, "--resume"):
        _, told = process.communicate()
        assert process.returncode == 0, told
    for name in ("adapter_model.safetensors", "metrics.jsonl", "pamctl.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
