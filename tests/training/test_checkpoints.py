"""Checkpoints: what comes back is what was saved, and what cannot be trusted is passed over or refused."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp  # type: ignore[import-untyped]

from pamctl.refusal import Refusal
from pamctl.training.checkpoints import (
    STEPS,
    Checkpoints,
    differences,
    folder_of,
    has_checkpoints,
    locked_folder_of,
)
from pamctl.training.metrics_log import FILE_NAME

CONFIGURATION = {"seed": 0, "learning_rate": 0.003, "targets": "x", "global_adapter": None}
ARRAYS = Path(STEPS) / "arrays"
LIKE = {"a": jnp.zeros((2, 3)), "count": jnp.int32(0)}


def state(step: int) -> dict[str, Any]:
    return {"a": jnp.full((2, 3), step / 7, jnp.float32), "count": jnp.int32(step)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 2 and 3, each with its part of the metrics."""
    folder = tmp_path / "out.checkpoints"
    folder.mkdir()
    save_three(folder, kept=2)
    return folder


def save_three(folder: Path, kept: int) -> None:
    (folder / FILE_NAME).write_bytes(b"x" * 30)
    with closing(Checkpoints(folder, CONFIGURATION, 1, kept)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), 10 * step)
        checkpoints.settle()


def latest(folder: Path, configuration: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
    told: list[str] = []
    with closing(Checkpoints(folder, configuration or CONFIGURATION, 1)) as checkpoints:
        return checkpoints.latest(LIKE, told.append), told


def test_the_newest_comes_back_to_the_bit(folder: Path) -> None:
    found, told = latest(folder)
    assert (found.step, found.metrics_size, told) == (3, 30, [])
    np.testing.assert_array_equal(found.state["a"], state(3)["a"])
    assert int(found.state["count"]) == 3


@pytest.mark.parametrize(("kept", "steps"), [(1, {"3"}), (2, {"2", "3"}), (3, {"1", "2", "3"})])
def test_the_last_ones_are_kept(tmp_path: Path, kept: int, steps: set[str]) -> None:
    save_three(tmp_path, kept)
    assert {child.name for child in (tmp_path / ARRAYS).iterdir()} == steps
    assert {child.stem for child in (tmp_path / STEPS / "records").iterdir()} == steps


def test_arrays_without_a_record_do_not_count_and_go(folder: Path) -> None:
    (folder / STEPS / "records" / "3.json").unlink()
    (folder / ARRAYS / "4.orbax-checkpoint-tmp").mkdir()
    found, told = latest(folder)
    assert (found.step, told) == (
        2,
        [f"checkpoint {folder / ARRAYS / '3'} was not finished and is passed over"],
    )
    assert [child.name for child in (folder / ARRAYS).iterdir()] == ["2"]


def test_none_is_found_where_none_is(tmp_path: Path) -> None:
    assert latest(tmp_path) == (None, [])
    assert not has_checkpoints(tmp_path / "out")


def _truncate_all(step: Path) -> None:
    for file in step.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def _remove_file(step: Path) -> None:
    (step / "_CHECKPOINT_METADATA").unlink()


def _tear_record(step: Path) -> None:
    record = step.parent.with_name("records") / f"{step.name}.json"
    record.write_bytes(record.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [_truncate_all, _remove_file, _tear_record])
def test_a_damaged_one_is_passed_over_for_the_one_before(folder: Path, damage: Any) -> None:
    damage(folder / ARRAYS / "3")
    found, told = latest(folder)
    assert found.step == 2
    np.testing.assert_array_equal(found.state["a"], state(2)["a"])
    assert len(told) == 1
    assert str(folder / ARRAYS / "3") in told[0]


def test_lost_metrics_damage_a_checkpoint(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"x" * 25)
    found, told = latest(folder)
    assert (found.step, found.metrics_size) == (2, 20)
    assert "lost events" in told[0]


def test_after_a_damaged_one_its_step_can_be_saved_again(folder: Path) -> None:
    _truncate_all(folder / ARRAYS / "3")
    with closing(Checkpoints(folder, CONFIGURATION, 1)) as checkpoints:
        assert checkpoints.latest(LIKE, lambda _: None) is not None
        checkpoints.save(3, state(3), 30)
        checkpoints.settle()
    assert latest(folder)[0].step == 3


def test_when_none_can_be_read_that_is_refused(folder: Path) -> None:
    for step in ("2", "3"):
        _truncate_all(folder / ARRAYS / step)
    with pytest.raises(Refusal, match=r"no checkpoint in .* can be read"):
        latest(folder)
    assert latest(folder) == (None, [])


def test_another_configuration_is_refused_with_the_differences(folder: Path) -> None:
    with pytest.raises(Refusal) as refused:
        latest(folder, {**CONFIGURATION, "seed": 1, "learning_rate": 0.001})
    assert "learning_rate was 0.003, is 0.001" in refused.value.what
    assert "seed was 0, is 1" in refused.value.what
    assert "targets" not in refused.value.what


def test_differences_tell_settings_of_one_side_only() -> None:
    assert differences({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["a was 1, is None", "c was None, is 3"]


def test_another_version_of_jax_is_told_and_no_fault(folder: Path) -> None:
    record = folder / STEPS / "records" / "3.json"
    record.write_text(record.read_text().replace(f'"jax": "{jax.__version__}"', '"jax": "0.9.9"'))
    found, told = latest(folder)
    assert found.step == 3
    assert len(told) == 1
    assert f"jax was 0.9.9, is {jax.__version__}" in told[0]


class HeldSave:
    """Stands for orbax: what it saves is on disk once `end` was called, or fails with the fault given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        self._fault, self._ended, self._real = fault, threading.Event(), ocp.save_checkpointables_async
        monkeypatch.setattr(ocp, "save_checkpointables_async", self._save)

    def _save(self, *given: Any) -> "HeldSave":
        self._response = self._real(*given)
        return self

    def result(self) -> None:
        assert self._ended.wait(60)
        self._response.result()
        if self._fault is not None:
            raise self._fault

    def end(self) -> None:
        self._ended.set()


def test_a_save_is_not_waited_for_and_counts_once_settled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldSave(monkeypatch)
    with closing(Checkpoints(folder, CONFIGURATION, 1, kept=1)) as checkpoints:
        checkpoints.save(4, state(4), 30)
        assert {child.stem for child in (folder / STEPS / "records").iterdir()} == {"2", "3"}
        held.end()
        checkpoints.settle()
        assert [child.stem for child in (folder / STEPS / "records").iterdir()] == ["4"]
    assert latest(folder)[0].step == 4


def test_closing_waits_for_the_save(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldSave(monkeypatch)
    checkpoints = Checkpoints(folder, CONFIGURATION, 1)
    checkpoints.save(4, state(4), 30)
    timer = threading.Timer(0.2, held.end)
    timer.start()
    checkpoints.close()
    timer.join()
    assert (folder / STEPS / "records" / "4.json").exists()


def test_memory_that_is_overwritten_after_a_save_began_is_saved_as_it_was(folder: Path) -> None:
    """A donated array is overwritten in place by the next step; here it is as soon as it may be."""
    size = 1_000_000
    weights = jnp.asarray(np.random.default_rng(0).random(size, np.float32))
    expected = np.array(weights)
    with closing(Checkpoints(folder, CONFIGURATION, 1)) as checkpoints:
        checkpoints.save(4, {"a": weights}, 30)
        ctypes.memset(weights.unsafe_buffer_pointer(), 0, weights.nbytes)
        checkpoints.settle()
        assert not weights.any()
        found = checkpoints.latest({"a": jnp.zeros(size)}, pytest.fail)
    assert found is not None
    np.testing.assert_array_equal(found.state["a"], expected)


FULL = ValueError("Error writing local file: [OS error 28: ENOSPC No space left on device]")


@pytest.mark.parametrize("told_by", ["settle", "save"])
def test_a_full_disk_is_named_at_the_end_or_by_the_next_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    HeldSave(monkeypatch, FULL).end()
    with closing(Checkpoints(folder, CONFIGURATION, 1)) as checkpoints:
        checkpoints.save(4, state(4), 30)
        with pytest.raises(Refusal, match=r"no space left to write .*out.checkpoints"):
            checkpoints.settle() if told_by == "settle" else checkpoints.save(5, state(5), 30)
    assert latest(folder)[0].step == 3


def test_a_full_disk_at_the_beginning_of_a_save_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(ocp, "save_checkpointables_async", full)
    checkpoints = Checkpoints(folder, CONFIGURATION, 1)
    with pytest.raises(Refusal, match=r"no space left to write .*out.checkpoints"):
        checkpoints.save(4, state(4), 30)


def test_a_fault_of_a_save_is_not_raised_by_closing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HeldSave(monkeypatch, FULL).end()
    checkpoints = Checkpoints(folder, CONFIGURATION, 1)
    checkpoints.save(4, state(4), 30)
    checkpoints.close()
    assert not (folder / STEPS / "records" / "4.json").exists()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from pamctl.training.checkpoints import locked_folder_of\n"
        "with locked_folder_of(Path(sys.argv[1])): pass\n"
    )
    with locked_folder_of(tmp_path / "out"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "out")], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert "another process is training into" in done.stderr


TWO_PROCESSES = """
import sys
from pathlib import Path
import jax
import numpy as np
from pamctl.distributed import Devices, join
from pamctl.refusal import Refusal
from pamctl.training.checkpoints import Checkpoints, has_checkpoints, locked_folder_of

index, out = int(sys.argv[2]), Path(sys.argv[3])
join(coordinator=sys.argv[1], num_processes=2, process_id=index)
devices = Devices.of()

def state(step):
    rows = [np.full((1, 3), 10 * step + row, np.float32) for row in devices.local_rows(4)]
    lora = jax.device_put(np.full(5, step, np.float32), devices.replicated)
    return {"rows": devices.put_batch({"x": np.concatenate(rows)})["x"], "lora": lora}

told = []
with locked_folder_of(out) as folder:
    if devices.is_main:
        (folder / "metrics.jsonl").touch()
    checkpoints = Checkpoints(folder, {"seed": 0}, 1)
    assert checkpoints.latest(state(0), told.append) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), 0)
    checkpoints.settle()
    assert {file.stem for file in (folder / "steps/records").iterdir()} == {"2", "3"}
    devices.barrier("seen")
    if devices.is_main:
        (folder / "steps/arrays/3/_CHECKPOINT_METADATA").unlink()
    found = checkpoints.latest(state(0), told.append)
    assert found.step == 2
    for name, array in state(2).items():
        assert found.state[name].sharding == array.sharding
        for one, other in zip(found.state[name].addressable_shards, array.addressable_shards, strict=True):
            assert (np.asarray(one.data) == np.asarray(other.data)).all()
    assert len(told) == (1 if devices.is_main else 0), told
    try:
        Checkpoints(folder, {"seed": 1}, 1).latest(state(0), told.append)
    except Refusal as refused:
        assert "seed was 0, is 1" in refused.what
    else:
        raise AssertionError("another configuration was taken")
    checkpoints.remove()
    devices.barrier("removed")
    assert not has_checkpoints(out)
print("all held", flush=True)
"""


def test_two_processes_save_and_load_as_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, coordinator, str(index), str(tmp_path / "out")],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (stdout, stderr) in zip(running, ended, strict=True):
        # Gloo says on stdout that it is connected.
        assert (process.returncode, stdout.splitlines()[-1:]) == (0, ["all held"]), stderr


def test_the_folder_vanishes_unless_a_checkpoint_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with locked_folder_of(out) as folder:
        assert folder == folder_of(out)
    assert not folder.exists()
    with locked_folder_of(out) as folder:
        (folder / STEPS / "records").mkdir(parents=True)
        (folder / STEPS / "records" / "5.json").write_text("{}")
    assert has_checkpoints(out)
