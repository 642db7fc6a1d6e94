"""Each miniature of a release is made again byte for byte by its script, and taken for that release alone."""

from pathlib import Path

import pytest

from pamctl.tasks.images import Images
from pamctl.tasks.readers import readers
from pamctl.tasks.releases import Release
from pamctl.tasks.task_file import recognised
from tests.tasks.release_cases import RELEASES, script

SCRIPTS = sorted(path.stem for path in RELEASES.glob("make_*.py"))
NAMES = [name.removeprefix("make_").replace("_", "-") for name in SCRIPTS]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(("name", "made_by"), list(zip(NAMES, SCRIPTS, strict=True)))
def test_the_script_makes_the_same_bytes(name: str, made_by: str, tmp_path: Path) -> None:
    script(made_by).make(tmp_path)
    assert contents(tmp_path) == contents(RELEASES / name)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_recognised_and_no_other_reader_takes_it(name: str) -> None:
    found = recognised(RELEASES / name)
    assert found is not None
    assert found.reader.name == name
    release = Release(RELEASES / name, Images([]))
    takers = [reader.name for reader in readers().values() if reader.takes(release)]
    assert takers == [name]


def test_every_miniature_has_its_script() -> None:
    folders = {path.name for path in RELEASES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(NAMES)
