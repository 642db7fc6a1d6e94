"""Which adapter a method goes on from where the global one was merged."""

from pathlib import Path

import pytest

from pamctl.adapters import open_adapter, write_adapter
from pamctl.merging import merge
from pamctl.models.base import load_base
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import open_task
from pamctl.training import train_task
from pamctl.training.inheritance import inherited
from pamctl.training.preparation import prepare
from tests.training_cases import SETTINGS, write_base, write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a task, `first`, trained on it, and `merged`, of it and of itself."""
    place = tmp_path_factory.mktemp("previous")
    base, task = str(write_base(place / "base")), write_task(place)
    first = open_adapter(train_task(task, place / "first", base=base, **{**SETTINGS, "steps": 1}))
    write_adapter(merge([first, first], "magmax", space="factor"), place / "merged")
    return place


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("magmax", "--method magmax goes on from what was trained before it"),
        ("er+pam", "--method er+pam needs the examples kept beside what was trained before it"),
    ],
)
def test_a_merged_adapter_is_not_taken_for_the_one_that_was_trained(
    folder: Path, method: str, wanted: str
) -> None:
    task, base = open_task(folder / "colours.jsonl"), load_base(str(folder / "base"))
    with pytest.raises(Refusal) as refused:
        prepare([task], base, inherited(folder / "merged"), {"method": method})
    assert refused.value.what == f"{folder / 'merged'} is merged, and {wanted}"
    assert refused.value.way_on == "name that with --previous"
    prepared = prepare([task], base, inherited(folder / "merged", folder / "first"), {"method": method})
    first = open_adapter(folder / "first").fingerprint
    assert prepared.run.configuration.previous == first


def test_one_that_would_not_be_used_is_refused(folder: Path) -> None:
    task, base = open_task(folder / "colours.jsonl"), load_base(str(folder / "base"))
    with pytest.raises(UsageRefusal, match="--method average makes no use of --previous"):
        prepare([task], base, inherited(folder / "merged", folder / "first"), {"method": "average"})


def test_the_previous_adapter_alone_is_refused(folder: Path) -> None:
    with pytest.raises(UsageRefusal, match="--previous without --global"):
        inherited(None, folder / "first")
