from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pamctl import hub
from pamctl.adapters import open_adapter
from pamctl.adapters.sources import locate
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import KEY, random_adapter, saved, write_peft
from tests.pickle_cases import write_torch

FACTORS = {
    f"{KEY}.lora_A.weight": np.ones((4, 16), np.float32),
    f"{KEY}.lora_B.weight": np.ones((16, 4), np.float32),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[hub.HubReference]:
    """The references that the Hub was asked for; it has one adapter, in every repository and folder."""
    folder = saved(random_adapter(), tmp_path / "cache")
    (folder / "optimizer.pt").write_bytes(b"not wanted")
    references: list[hub.HubReference] = []

    def fetch(reference: hub.HubReference, wanted: Callable[[Sequence[str]], Sequence[str]]) -> hub.Snapshot:
        names = tuple(sorted(path.name for path in folder.iterdir()))
        assert "optimizer.pt" not in wanted(names)
        references.append(reference)
        return hub.Snapshot(reference.repository, COMMIT, folder, names, ("found in the cache",))

    monkeypatch.setattr(hub, "fetch", fetch)
    return references


def test_a_folder_and_the_file_in_it_are_the_same_adapter(tmp_path: Path) -> None:
    folder = saved(random_adapter(), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    assert open_adapter(folder).fingerprint == open_adapter(str(file)).fingerprint


def test_a_second_adapter_in_a_folder_is_noted(tmp_path: Path) -> None:
    folder = saved(random_adapter(), tmp_path / "a")
    assert locate(folder).notes == ()
    (folder / "adapter_model.bin").write_bytes(b"another")
    assert locate(folder).notes == (
        "adapter_model.bin lies beside adapter_model.safetensors and is not read",
    )
    assert locate(folder / "adapter_model.safetensors").notes == ()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("hf://org/name", hub.HubReference("org/name", None, "")),
        ("org/name", hub.HubReference("org/name", None, "")),
        ("hf://org/name@v1/sub", hub.HubReference("org/name", "v1", "sub")),
        (
            "hf://org/name/adapter_model.safetensors",
            hub.HubReference("org/name", None, "adapter_model.safetensors"),
        ),
    ],
)
def test_what_is_not_on_disk_is_asked_of_the_hub_and_its_commit_kept(
    reference: str, expected: hub.HubReference, asked: list[hub.HubReference]
) -> None:
    opened = open_adapter(reference)
    assert asked == [expected]
    assert opened.fingerprint == random_adapter().fingerprint
    assert opened.name == reference
    assert opened.origin is not None
    assert (opened.origin.repository, opened.origin.commit) == ("org/name", COMMIT)
    assert "found in the cache" in opened.origin.notes


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("hf://org/name", "org/name"),
        ("org/name@v1/sub", "org/name@v1/sub"),
        ("hf://org/name/sub/adapter_model.safetensors", "org/name/sub"),
    ],
)
def test_a_file_from_the_hub_is_refused_by_its_place_there(
    reference: str, place: str, asked: list[hub.HubReference], tmp_path: Path
) -> None:
    config = tmp_path / "cache" / "adapter_config.json"
    config.write_text("{")
    with pytest.raises(Refusal) as refusal:
        open_adapter(reference)
    assert refusal.value.what.startswith(f"{place}/adapter_config.json is not JSON")
    config.unlink()
    with pytest.raises(Refusal) as refusal:
        open_adapter(reference)
    assert refusal.value.what == f"{place} holds no adapter_config.json"


def test_a_folder_of_that_name_comes_before_the_hub(
    asked: list[hub.HubReference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(random_adapter(), tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert locate("org/name").repository is None
    assert asked == []


@pytest.mark.parametrize("reference", ["missing", "./org/name", "../name", "/org/name"])
def test_what_does_not_exist_is_refused_by_the_name_given(
    reference: str, asked: list[hub.HubReference]
) -> None:
    with pytest.raises(Refusal, match="no such file or folder") as refusal:
        locate(reference)
    assert reference in refusal.value.what
    assert "hf://org/name" in refusal.value.way_on
    assert asked == []


@pytest.mark.parametrize("reference", ["x" * 5000, "org/" + "x" * 5000, "hf://org/name/" + "x" * 5000])
def test_a_reference_too_long_for_a_disk_is_refused_in_a_short_line(
    reference: str, asked: list[hub.HubReference]
) -> None:
    with pytest.raises(Refusal, match="File name too long") as refusal:
        locate(reference)
    assert len(refusal.value.what) < 300
    assert asked == []


@pytest.mark.parametrize("reference", ["hf://name", "hf://", "hf://a/b/../../c", "hf://a/b@"])
def test_a_malformed_reference_to_the_hub_is_refused_unasked(
    reference: str, asked: list[hub.HubReference]
) -> None:
    with pytest.raises(UsageRefusal):
        locate(reference)
    assert asked == []


def test_a_folder_without_tensors_is_refused(tmp_path: Path) -> None:
    (write_peft(tmp_path) / "adapter_model.safetensors").unlink()
    with pytest.raises(Refusal, match="holds no adapter") as refusal:
        locate(tmp_path)
    assert ".safetensors" in refusal.value.way_on


def test_one_of_several_files_has_to_be_named(tmp_path: Path) -> None:
    file = write_peft(tmp_path) / "adapter_model.safetensors"
    for name in ("one.safetensors", "two.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes())
    assert locate(tmp_path).weights == file
    file.unlink()
    with pytest.raises(Refusal, match=r"2 files .* one\.safetensors, two\.safetensors"):
        locate(tmp_path)
    assert locate(tmp_path / "two.safetensors").weights.name == "two.safetensors"


@pytest.mark.parametrize("as_file", [False, True])
def test_a_pickle_is_refused_and_not_opened(as_file: bool, tmp_path: Path) -> None:
    (write_peft(tmp_path) / "adapter_model.safetensors").unlink()
    pickle = tmp_path / "adapter_model.bin"
    pickle.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(Refusal, match="is a pickle") as refusal:
        open_adapter(pickle if as_file else tmp_path)
    assert "--allow-pickle" in refusal.value.way_on
    assert locate(pickle if as_file else tmp_path, allow_pickle=True).weights == pickle


@pytest.mark.parametrize("config", [{}, {"peft_type": None, "lora_parameters": {"rank": 4, "scale": 3.0}}])
def test_a_config_of_another_adapter_in_the_folder_does_not_scale_a_file(
    config: dict[str, Any], tmp_path: Path
) -> None:
    write_peft(tmp_path, **config)
    style = tmp_path / "style.safetensors"
    names = ("lora_unet_mid_block_x.lora_down.weight", "lora_unet_mid_block_x.lora_up.weight")
    save_file(dict(zip(names, FACTORS.values(), strict=True)), style)
    assert [shape.scale for shape in open_adapter(style).shapes.values()] == [1.0]
    names = ("unet.mid_block.x.lora_A.weight", "unet.mid_block.x.lora_B.weight")
    save_file(dict(zip(names, FACTORS.values(), strict=True)), style)
    with pytest.raises(Refusal, match="may be diffusers'"):
        open_adapter(style)
    (tmp_path / "adapter_config.json").unlink()
    assert [shape.scale for shape in open_adapter(style).shapes.values()] == [1.0]


def test_full_weights_beside_an_adapter_are_not_overlooked(tmp_path: Path) -> None:
    (write_peft(tmp_path) / "non_lora_trainables.bin").write_bytes(b"")
    with pytest.raises(Refusal, match=r"non_lora_trainables\.bin lies beside") as refusal:
        open_adapter(tmp_path)
    assert "--allow-pickle" in refusal.value.way_on


def test_full_weights_beside_an_adapter_are_carried_along_unless_it_holds_them_too(tmp_path: Path) -> None:
    name = "base_model.model.model.mm_projector.0.weight"
    weight = np.ones((3, 2), np.float32)
    write_torch(write_peft(tmp_path) / "non_lora_trainables.bin", {name: weight})
    extras = open_adapter(tmp_path, allow_pickle=True).extras
    assert {key: extra.read().tolist() for key, extra in extras.items()} == {
        "multi_modal_projector.linear_1.weight": weight.tolist()
    }
    write_peft(tmp_path, FACTORS | {name: 2 * weight}, modules_to_save=["mm_projector.0"])
    with pytest.raises(Refusal, match=r"linear_1\.weight is both in .*adapter_model.* and in .*non_lora"):
        open_adapter(tmp_path, allow_pickle=True)


def test_an_adapter_one_folder_deeper_is_pointed_out(tmp_path: Path) -> None:
    write_peft(tmp_path / "inner")
    with pytest.raises(Refusal) as refusal:
        locate(tmp_path)
    assert str(tmp_path / "inner") in refusal.value.way_on


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"not a \.safetensors file"):
        locate(write_peft(tmp_path) / "adapter_config.json")
