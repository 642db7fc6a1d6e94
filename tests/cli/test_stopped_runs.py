"""A run goes on to the same where it was stopped, and several processes make the same."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from pamctl.training.checkpoints import locked_folder_of
from tests.sequence_cases import TWO_ORDERS, adapters, based_on, predictions, results, write_sequence
from tests.warm_pamctl import Signalled, WarmPamctl

STEP = 4


@pytest.fixture(scope="module")
def unbroken(warm: WarmPamctl, sequence: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert warm("run", sequence, "-o", "out", cwd=folder).code == 0
    return folder / "out"


def test_stopped_in_every_way_it_goes_on_to_the_same(
    warm: WarmPamctl, sequence: str, unbroken: Path, tmp_path: Path
) -> None:
    """Each time within a training and once between two stages, each time further on."""
    given, out = ("run", sequence, "-o", "out"), tmp_path / "out"
    stopped = warm(*given, cwd=tmp_path, signalled=Signalled(signal.SIGTERM, STEP, 0))
    assert stopped.code == 75, stopped.stderr
    assert (out / "one/seed-0/first/1-colours/trained.checkpoints").is_dir()
    assert warm(*given, cwd=tmp_path, signalled=Signalled(signal.SIGINT, STEP, 0)).code == 130
    assert warm(*given, cwd=tmp_path, signalled=Signalled(signal.SIGKILL, STEP, 0)).code == -signal.SIGKILL
    process = warm.start(*given, cwd=tmp_path)
    while not (out / "one/seed-0/average/2-shapes/pruned").exists():
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert warm.wait(process).code == -signal.SIGKILL
    assert warm(*given, cwd=tmp_path).code == 0
    assert adapters(out) == adapters(unbroken)
    assert {*results(out)} == {*results(unbroken)}
    assert predictions(out) == predictions(unbroken)


def test_several_processes_make_the_same_and_a_cell_that_fails_is_told(
    warm: WarmPamctl, inputs: Path, unbroken: Path, tmp_path: Path
) -> None:
    file = based_on(inputs, write_sequence(tmp_path, '["average", { name = "moelora", experts = 2 }, "pam"]'))
    given = ("run", str(file), "--data", str(inputs), "-o", "out", "--jobs", "2")
    done = warm(*given, cwd=tmp_path)
    assert (done.code, done.stdout) == (1, "")
    assert "Warning: one/seed-0/moelora failed: rank 3 cannot be shared evenly by 2 experts" in done.stderr
    assert "Error: 1 of the run's parts failed: one/seed-0/moelora" in done.stderr
    assert adapters(tmp_path / "out") == adapters(unbroken)
    assert results(tmp_path / "out") == results(unbroken)
    assert predictions(tmp_path / "out") == predictions(unbroken)
    assert (tmp_path / "out/report/report.md").read_text() == (unbroken / "report/report.md").read_text()


def test_a_sigterm_reaches_every_process(warm: WarmPamctl, inputs: Path, tmp_path: Path) -> None:
    file = write_sequence(tmp_path, '["finetune"]', TWO_ORDERS, settings="steps = 100000\nbatch_size = 4")
    given = ("run", str(based_on(inputs, file)), "--data", str(inputs), "-o", "out", "--jobs", "2")
    process = warm.start(*given, cwd=tmp_path)
    under_way = [tmp_path / f"out/{order}/seed-0/first" for order in ("one", "two")]
    while not all([*place.glob("*/trained.checkpoints/metrics.jsonl")] for place in under_way):
        time.sleep(0.05)
    os.kill(process, signal.SIGTERM)
    done = warm.wait(process)
    assert done.code == 75, done.stderr
    for place in under_way:
        assert [*place.glob("*/trained.checkpoints/steps/records/*.json")]


def test_a_training_that_another_process_is_at_is_waited_for(
    warm: WarmPamctl, sequence: str, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "one/seed-0/first")
    with locked_folder_of(out / "one/seed-0/first/1-colours/trained"):
        (out / "results.jsonl").unlink()
        process = warm.start("run", sequence, "-o", "out", cwd=tmp_path)
        while not (out / "results.jsonl").exists():  # zero-shot comes before the first task
            time.sleep(0.05)
        time.sleep(1)
        assert not (out / "one/seed-0/first/1-colours/trained").exists()
    done = warm.wait(process)
    assert done.code == 0, done.stderr
    assert "another process is training into out/one/seed-0/first/1-colours/trained: waiting" in done.stderr
    assert adapters(out) == adapters(unbroken)
