"""What the tests of several commands start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapter_cases import child_of, random_adapter, saved
from tests.in_haste import FLAGS
from tests.sequence_cases import write_inputs, write_sequence
from tests.warm_pamctl import WarmPamctl


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working one, with `first`, `second`, trained from it, and `other` of rank 6."""
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1, tasks=("a", "b")), tmp_path / "second")
    saved(random_adapter(2, rank=6), tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPamctl]:
    """The program, whose runs compile in haste: they compute for a moment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XLA_FLAGS", FLAGS)
        # A command that is killed may leave a compiled program half-written, which the next would tell.
        patched.setenv("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache")
        program = WarmPamctl(tmp_path_factory.mktemp("streams"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three tasks."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def sequence(inputs: Path) -> str:
    """A sequence file: two methods on two tasks."""
    return str(write_sequence(inputs))
