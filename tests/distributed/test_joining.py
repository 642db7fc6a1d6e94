"""What join asks of jax, however it is told of other processes; how it refuses when they do not meet."""

import os
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import jax
import pytest
from launcher_cases import SEVERAL, SHARED_NODE, SLURM, is_told_by_a_launcher, without_launchers

from pamctl.distributed import join, joining
from pamctl.refusal import Refusal, UsageRefusal


class Recorder(list[dict[str, Any]]):
    """Stands for jax.distributed.initialize."""

    def __call__(self, **arguments: Any) -> None:
        assert arguments.pop("initialization_timeout") > joining.TIMEOUT, "or jax aborts before we refuse"
        self.append(arguments)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    for name in os.environ:
        if is_told_by_a_launcher(name):
            monkeypatch.delenv(name)
    recorder = Recorder()
    monkeypatch.setattr(jax.distributed, "initialize", recorder)
    monkeypatch.setattr(joining, "find_spec", lambda name: None)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    return recorder


def explicit(coordinator: str, count: int, index: int, devices: tuple[int, ...] | None = None) -> Any:
    return [
        {
            "coordinator_address": coordinator,
            "num_processes": count,
            "process_id": index,
            "local_device_ids": devices,
            "cluster_detection_method": "deactivate",
        }
    ]


def set_all(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "name",
    [name for name, (_, launch) in SEVERAL.items() if launch.coordinator and launch.process_id is not None],
)
def test_every_launcher_is_passed_on_in_full(
    name: str, asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, launch = SEVERAL[name]
    set_all(monkeypatch, environ)
    assert join().startswith(f"{launch.launcher}: process 0 of 1, ")
    assert asked == explicit(
        str(launch.coordinator), launch.num_processes, launch.process_id or 0, launch.local_device_ids
    )


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_one_process_joins_nothing_and_says_so(mode: Any, asked: Recorder) -> None:
    assert re.fullmatch(r"one process, \d+ \w+ devices?", join(mode))
    assert not asked


def test_off_is_alone_even_under_a_launcher(asked: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SLURM)
    assert join("off").startswith("one process, ")
    assert not asked


def test_who_has_joined_already_is_left(asked: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SLURM)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert join().startswith("joined before: process 0 of 1, ")
    assert not asked


def test_on_refuses_to_be_alone_and_lists_what_it_looked_for(asked: Recorder) -> None:
    with pytest.raises(UsageRefusal) as refusal:
        join("on")
    for variable in (
        "SLURM_STEP_NODELIST",
        "OMPI_COMM_WORLD_SIZE",
        "TPU_WORKER_HOSTNAMES",
        "SKYPILOT_NUM_NODES",
    ):
        assert variable in refusal.value.what
    assert not asked


def test_on_asks_jax_where_the_metadata_of_a_tpu_vm_may_know(
    asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "find_spec", lambda name: name)
    assert join("on").startswith("Cloud TPU VM: ")
    assert asked == [{}]


def test_arguments_go_before_variables_and_variables_before_the_launcher(
    asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, SLURM | SHARED_NODE)
    set_all(monkeypatch, {"PAMCTL_COORDINATOR": "mine:1", "PAMCTL_NUM_PROCESSES": "9"})
    join(num_processes=8)
    assert asked == explicit("mine:1", 8, 3, (2,))


def test_variables_alone_suffice(asked: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"PAMCTL_COORDINATOR": "mine:1", "PAMCTL_NUM_PROCESSES": "2", "PAMCTL_PROCESS_ID": "1"}
    set_all(monkeypatch, told)
    assert join("on").startswith("as told: ")
    assert asked == explicit("mine:1", 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "a:1"}, "some are missing"),
        ({"process_id": 0, "num_processes": 2}, "some are missing"),
        ({"coordinator": "a", "process_id": 0, "num_processes": 2}, "is not host:port"),
        ({"coordinator": "a:1", "process_id": 2, "num_processes": 2}, "no process 2 among 2"),
    ],
)
def test_arguments_that_make_no_whole_are_refused(
    arguments: dict[str, Any], message: str, asked: Recorder
) -> None:
    with pytest.raises(UsageRefusal, match=message):
        join(**arguments)
    assert not asked


def test_a_launcher_that_names_no_coordinator_asks_for_one(
    asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, SEVERAL["open mpi 5, which names no host"][0])
    with pytest.raises(UsageRefusal, match="Open MPI started 16 processes but does not tell the coordinator"):
        join()
    join(coordinator="head:1")
    assert asked == explicit("head:1", 16, 9, (1,))


def test_the_coordinator_is_kept_off_the_proxy_and_nothing_else_is(
    asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(coordinator="[fe80::1]:1", num_processes=2, process_id=1)
    assert "no_grpc_proxy" not in os.environ
    set_all(monkeypatch, {"https_proxy": "http://proxy:3128", "no_proxy": "internal", "no_grpc_proxy": ""})
    join(coordinator="[fe80::1]:1", num_processes=2, process_id=1)
    assert os.environ[joining._NO_PROXY] == "internal,fe80::1"
    assert os.environ["no_proxy"] == "internal"


JOIN_ALONE = """
import sys
from pamctl.distributed import join, joining
from pamctl.refusal import Refusal
joining.TIMEOUT = 1
try:
    join(coordinator=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
except Refusal as refusal:
    print(refusal.what)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env={**without_launchers(os.environ), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_others_that_never_come_are_a_refusal_where_jax_would_abort() -> None:
    finished = run(JOIN_ALONE, "nobody.invalid:1", "1")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "process 1 of 2 has not met the others at nobody.invalid:1 within 1 s\n"


def test_a_taken_port_is_a_refusal_where_jax_may_crash(asked: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            Refusal, match=f"cannot open port {port} to await the others: Address already in use"
        ):
            join(coordinator=f"here:{port}", num_processes=2, process_id=0)
        join(coordinator=f"there:{port}", num_processes=2, process_id=1)
    assert asked == explicit(f"there:{port}", 2, 1), "only process 0 opens it"


def test_what_goes_wrong_between_processes_is_a_refusal(
    asked: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def initialize(**arguments: Any) -> None:
        raise jax.errors.JaxRuntimeError("ABORTED: another has its number\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(
        Refusal, match=r"process 1 of 2 cannot join at head:1: ABORTED: another has its number$"
    ):
        join(coordinator="head:1", num_processes=2, process_id=1)


def test_sigterm_still_ends_a_process_that_has_joined() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    finished = run(
        "import os, signal, sys, time; from pamctl.distributed import join\n"
        "print(join(coordinator=sys.argv[1], num_processes=1, process_id=0), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
        coordinator,
    )
    assert finished.stdout == "as told: process 0 of 1, 1 local of 1 CPU device\n", finished.stderr
    assert finished.returncode == -signal.SIGTERM
