"""One base, two tasks and a first adapter for all tests of training."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pamctl.models.base import Base, load_base
from pamctl.training import train_task
from tests.in_haste import compiled_in_haste
from tests.training_cases import SETTINGS, write_base, write_task


@pytest.fixture(scope="module", autouse=True)
def _in_haste() -> Iterator[None]:
    with compiled_in_haste():
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, colours.jsonl, shapes.jsonl and first/, an adapter trained on colours."""
    folder = tmp_path_factory.mktemp("inputs")
    write_base(folder / "base")
    write_task(folder, "colours", seed=0)
    write_task(folder, "shapes", seed=1)
    with compiled_in_haste():
        train_task(folder / "colours.jsonl", folder / "first", base=str(folder / "base"), **SETTINGS)
    return folder


@pytest.fixture(scope="session")
def base(inputs: Path) -> Base:
    return load_base(str(inputs / "base"))
