"""What the tests of several commands start from."""

from pathlib import Path

import pytest

from tests.adapter_cases import child_of, random_adapter, saved


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working one, with `first`, `second`, trained from it, and `other` of rank 6."""
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1, tasks=("a", "b")), tmp_path / "second")
    saved(random_adapter(2, rank=6), tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    return tmp_path
