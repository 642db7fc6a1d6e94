from pathlib import Path

import pytest

from pamctl.adapters import open_adapter
from pamctl.adapters.sources import locate
from pamctl.refusal import Refusal
from tests.adapter_cases import random_adapter, saved, write_peft


def test_a_folder_and_the_file_in_it_are_the_same_adapter(tmp_path: Path) -> None:
    folder = saved(random_adapter(), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    assert open_adapter(folder).fingerprint == open_adapter(str(file)).fingerprint


@pytest.mark.parametrize("reference", ["hf://org/name", "org/name", "missing"])
def test_what_does_not_exist_is_refused_by_the_name_given(reference: str) -> None:
    with pytest.raises(Refusal, match="no such file or folder") as refusal:
        locate(reference)
    assert reference in refusal.value.what


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    (write_peft(tmp_path) / missing).unlink()
    with pytest.raises(Refusal, match=f"holds no {missing}"):
        locate(tmp_path)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_pickle_is_refused_and_not_opened(as_file: bool, tmp_path: Path) -> None:
    (write_peft(tmp_path) / "adapter_model.safetensors").unlink()
    pickle = tmp_path / "adapter_model.bin"
    pickle.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(Refusal, match="is a pickle") as refusal:
        locate(pickle if as_file else tmp_path)
    assert "safe_serialization" in refusal.value.way_on


def test_an_adapter_one_folder_deeper_is_pointed_out(tmp_path: Path) -> None:
    write_peft(tmp_path / "inner")
    with pytest.raises(Refusal) as refusal:
        locate(tmp_path)
    assert str(tmp_path / "inner") in refusal.value.way_on


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"not a \.safetensors file"):
        locate(write_peft(tmp_path) / "adapter_config.json")
