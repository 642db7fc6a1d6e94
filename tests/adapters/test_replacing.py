from pathlib import Path

import pytest

from pamctl.adapters import save_adapter
from pamctl.adapters.formats import FORMATS
from pamctl.adapters.replacing import replaced_files
from pamctl.refusal import Refusal
from tests.adapter_cases import random_adapter

PEFT = ["README.md", "adapter_config.json", "adapter_model.safetensors", "pamctl.json"]
OTHERS = [".gitattributes", "LICENSE", "images/1.png", "notes.txt", "state/of-affairs.txt", "v1/pamctl.json"]


@pytest.mark.parametrize("format", FORMATS)
def test_all_that_a_format_writes_goes_and_nothing_else(tmp_path: Path, format: str) -> None:
    save_adapter(random_adapter(tasks=("a",)), tmp_path, format)
    there = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()]
    others = [name for name in OTHERS if format != "orbax" or not name.startswith("state/")]
    new = ["README.md", "adapter_model.safetensors"]
    gone = replaced_files([*there, *others], new, "org/name", is_folder=True)
    assert set(gone) == set(there) - set(new)


def test_what_older_tools_left_goes_too() -> None:
    old = ["adapter_model.bin", "pytorch_lora_weights.bin", "non_lora_trainables.bin"]
    assert replaced_files([*old, *OTHERS], PEFT, "org/name", is_folder=True) == old


@pytest.mark.parametrize(
    ("there", "new", "is_folder", "what"),
    [
        (["a.safetensors"], ["lora.safetensors"], True, "2 files that could be the adapter: a.saf"),
        (["_CHECKPOINT_METADATA", "state/d/0"], PEFT, True, "org/name holds _CHECKPOINT_METADATA, which"),
        (PEFT, ["x.safetensors"], False, "org/name holds adapter_model.safetensors, which"),
        (PEFT, ["adapter_model.safetensors"], False, "adapter_config.json of another adapter, with which"),
        (["pamctl.json"], ["x.safetensors"], False, "org/name holds pamctl.json of another"),
        (["y.safetensors"], ["x.safetensors"], False, "2 files that could be the adapter: x.saf"),
        ([], ["model.safetensors"], False, "org/name holds no adapter"),
    ],
)
def test_a_place_that_would_be_read_as_another_adapter_is_refused(
    there: list[str], new: list[str], is_folder: bool, what: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        replaced_files(there, new, "org/name", is_folder=is_folder)
    assert what in refusal.value.what
    assert "another repository" in refusal.value.way_on
    assert ("write a folder" in refusal.value.way_on) == ("pamctl.json" in there)


def test_a_single_file_leaves_what_is_beside_it_and_follows_itself() -> None:
    there = ["x.safetensors", "README.md", *OTHERS]
    assert replaced_files(there, ["x.safetensors", "README.md"], "org/name", is_folder=False) == []


def test_folders_that_training_leaves_go_by_no_name_of_theirs() -> None:
    """Where other files lie too, a folder called `fast` may be anyone's."""
    there = ["adapter_model.safetensors", "fast/notes.txt", "replay/examples.jsonl"]
    gone = replaced_files(there, ["experts.safetensors"], "there", is_folder=True)
    assert gone == ["adapter_model.safetensors"]
