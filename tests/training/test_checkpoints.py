"""Checkpoints: what comes back is what was saved, and what cannot be trusted is passed over or refused."""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

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
    (folder / FILE_NAME).write_bytes(b"x" * 30)
    with closing(Checkpoints(folder, CONFIGURATION, 1)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), 10 * step)
    return folder


def latest(folder: Path, configuration: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
    told: list[str] = []
    with closing(Checkpoints(folder, configuration or CONFIGURATION, 1)) as checkpoints:
        return checkpoints.latest(LIKE, told.append), told


def test_the_newest_comes_back_to_the_bit(folder: Path) -> None:
    found, told = latest(folder)
    assert (found.step, found.metrics_size, told) == (3, 30, [])
    np.testing.assert_array_equal(found.state["a"], state(3)["a"])
    assert int(found.state["count"]) == 3


def test_the_last_two_are_kept(folder: Path) -> None:
    assert {child.name for child in (folder / ARRAYS).iterdir()} == {"2", "3"}
    assert {child.stem for child in (folder / STEPS / "records").iterdir()} == {"2", "3"}


def test_one_that_was_not_finished_does_not_count(folder: Path) -> None:
    (folder / STEPS / "records" / "3.json").unlink()
    found, told = latest(folder)
    assert (found.step, told) == (2, [])


def test_none_is_found_where_none_is(tmp_path: Path) -> None:
    assert latest(tmp_path) == (None, [])
    assert not has_checkpoints(tmp_path / "out")


def _truncate_all(step: Path) -> None:
    for file in step.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def _flip_bits(step: Path) -> None:
    for file in (step / "state").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)


def _remove_file(step: Path) -> None:
    (step / "_CHECKPOINT_METADATA").unlink()


def _remove_all(step: Path) -> None:
    shutil.rmtree(step)


def _tear_record(step: Path) -> None:
    record = step.parent.with_name("records") / f"{step.name}.json"
    record.write_bytes(record.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [_truncate_all, _flip_bits, _remove_file, _remove_all, _tear_record])
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


def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Checkpoints(folder, CONFIGURATION, 1)) as checkpoints:

        def full(*_: object, **__: object) -> None:
            raise ValueError("Error writing local file: [OS error 28: ENOSPC No space left on device]")

        monkeypatch.setattr(checkpoints._orbax, "save_checkpointables", full)
        with pytest.raises(Refusal, match=r"no space left to write .*out.checkpoints"):
            checkpoints.save(4, state(4), 30)
        monkeypatch.undo()


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


def test_the_folder_vanishes_unless_a_checkpoint_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with locked_folder_of(out) as folder:
        assert folder == folder_of(out)
    assert not folder.exists()
    with locked_folder_of(out) as folder:
        (folder / STEPS / "records").mkdir(parents=True)
        (folder / STEPS / "records" / "5.json").write_text("{}")
    assert has_checkpoints(out)
