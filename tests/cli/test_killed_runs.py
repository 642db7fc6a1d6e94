"""Killed at random moments, a run of each method that keeps something for later ends in the same bytes."""

import random
import signal
from pathlib import Path

import pytest

from tests.sequence_cases import TASKS, WEIGHTS, predictions, results, write_inputs, write_sequence
from tests.warm_pamctl import Signalled, WarmPamctl

KEEPING = ("magmax", "ilora", "olora", "moelora", "er+pam")
STEPS = 104
"""A task: a checkpoint is saved after 100."""


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    methods = [name if name != "moelora" else '{ name = "moelora", experts = 3 }' for name in KEEPING]
    listed = ", ".join(method if "{" in method else f'"{method}"' for method in methods)
    order = f"one = {list(TASKS)}"
    settings = f"steps = {STEPS}\nbatch_size = 4\nlr = 0.02\nalign_every = 5"
    return str(write_sequence(folder, f"[{listed}]", order, settings=settings))


@pytest.fixture(scope="module")
def unbroken(warm: WarmPamctl, sequence: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert warm("run", sequence, "-o", "out", cwd=folder).code == 0
    return folder / "out"


@pytest.mark.parametrize("method", KEEPING)
def test_killed_again_and_again_it_ends_in_the_same_bytes(
    warm: WarmPamctl, sequence: str, unbroken: Path, method: str, tmp_path: Path
) -> None:
    draws, given = random.Random(method), ("run", sequence, "--only", f"method={method}", "-o", "out")
    # Anywhere in the first two tasks, and then just after a checkpoint was begun.
    for step in (draws.randrange(2, 2 * STEPS), 101):
        signalled = Signalled(signal.SIGKILL, step, draws.uniform(0, 0.1))
        assert warm(*given, cwd=tmp_path, signalled=signalled).code == -signal.SIGKILL
    done = warm(*given, cwd=tmp_path)
    assert done.code == 0, done.stderr
    made = content(tmp_path / "out")
    assert made == {name: written for name, written in content(unbroken).items() if name in made}
    assert {*results(tmp_path / "out")} <= {*results(unbroken)}
    kept = predictions(tmp_path / "out")
    assert len({*kept}) == len(kept)
    assert {*kept} <= {*predictions(unbroken)}
    assert [name for name in made if name.startswith(f"one/seed-0/{method}/3-sizes/")]


def content(out: Path) -> dict[str, bytes]:
    """Every adapter, mixture of experts and replay buffer of a run, by path."""
    files = (file for kept in (WEIGHTS, "experts.safetensors", "buffer.jsonl") for file in out.rglob(kept))
    return {str(file.relative_to(out)): file.read_bytes() for file in files}
