from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pamctl.adapters import Adapter, open_adapter, write_adapter
from pamctl.adapters.flattening import flattened, unflattened
from pamctl.adapters.sgm_names import _DEPTHS, diffusers_paths, sgm_table
from pamctl.merging import merge
from pamctl.refusal import Refusal
from tests.adapter_cases import delta, random_factors

TO_Q = "transformer_blocks.0.attn1.to_q"
DEEP = "transformer_blocks.9.attn1.to_q"  # only SDXL has ten blocks in an attention
BY_HAND = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.4.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    f"input_blocks.4.1.{TO_Q}": f"down_blocks.1.attentions.0.{TO_Q}",
    f"input_blocks.8.1.{DEEP}": f"down_blocks.2.attentions.1.{DEEP}",
    "middle_block.0.out_layers.3": "mid_block.resnets.0.conv2",
    "middle_block.1.proj_in": "mid_block.attentions.0.proj_in",
    "middle_block.2.emb_layers.1": "mid_block.resnets.1.time_emb_proj",
    f"output_blocks.0.1.{DEEP}": f"up_blocks.0.attentions.0.{DEEP}",
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.1.transformer_blocks.1.ff.net.0.proj": (
        "up_blocks.1.attentions.2.transformer_blocks.1.ff.net.0.proj"
    ),
    "output_blocks.8.0.skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
    "time_embed.0": "time_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.2": "conv_out",
}


def flat(names: dict[str, str]) -> dict[str, str]:
    return {flattened(path): flattened(other) for path, other in names.items()}


@pytest.mark.parametrize("names", [BY_HAND, flat(BY_HAND)])
def test_the_paths_of_sdxl_are_diffusers(names: dict[str, str]) -> None:
    assert diffusers_paths(names) == names


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
        ("input_blocks.1.1.proj_in", "down_blocks.0.attentions.0.proj_in"),
        ("output_blocks.11.1.proj_out", "up_blocks.3.attentions.2.proj_out"),
    ],
)
def test_those_of_stable_diffusion_1_are_too(path: str, other: str) -> None:
    assert diffusers_paths([path]) == {path: other}
    assert diffusers_paths([path, f"input_blocks.8.1.{DEEP}"]) == {}


def test_what_two_unets_share_has_one_name_and_no_two_paths_have_the_same() -> None:
    tables = [sgm_table(unet) for unet in _DEPTHS]
    for table in tables:
        assert len(set(table.values())) == len(table) == len(flat(table))
        assert all(unflattened(flattened(path)) == path for path in table.values())
        assert all(table[path] == other[path] for other in tables for path in table.keys() & other.keys())


@pytest.mark.parametrize(
    "stranger",
    [
        f"input_blocks.3.1.{TO_Q}",  # an attention where these UNets go down: one with other resnets a level
        "input_blocks.12.0.in_layers.2",
        "input_blocks.4.1.time_stack.0.attn1.to_q",  # of a video model, whose resnets diffusers names anew
        "input_hint_block.0",  # of a ControlNet
        "output_blocks.8.1.proj_in.extra",
        "double_blocks.0.img_attn.proj",
    ],
)
@pytest.mark.parametrize("flatten", [False, True])
def test_one_path_of_another_model_leaves_all_as_they_are(stranger: str, flatten: bool) -> None:
    paths = [f"input_blocks.4.1.{TO_Q}", stranger]
    assert diffusers_paths([flattened(path) for path in paths] if flatten else paths) == {}


@pytest.mark.parametrize(
    "paths", [[], ["time_embed.0"], ["out.2"], ["conv_in", "mid_block.attentions.0.proj_in"]]
)
def test_without_a_numbered_block_of_the_layout_nothing_is_renamed(paths: list[str]) -> None:
    assert diffusers_paths(paths) == {}


def test_a_file_with_names_of_both_kinds_is_read_whole() -> None:
    names = [f"input_blocks.4.1.{TO_Q}", f"down_blocks.1.attentions.1.{TO_Q}", "conv_in"]
    assert diffusers_paths(names) == {names[0]: f"down_blocks.1.attentions.0.{TO_Q}"}


def sgm_adapter() -> Adapter:
    return Adapter({path: random_factors(index, 6, 8) for index, path in enumerate(BY_HAND)})


def save_kohya(adapter: Adapter, file: Path) -> Path:
    tensors = {}
    for module, factors in adapter.modules.items():
        key = f"lora_unet_{flattened(module)}"
        down_up = {f"{key}.lora_down.weight": factors.a, f"{key}.lora_up.weight": factors.b}
        tensors |= down_up | {f"{key}.alpha": np.array(2.0, np.float32)}
    save_file(tensors, file)
    return file


def save_comfyui(adapter: Adapter, file: Path) -> Path:
    tensors = {}
    for module, factors in adapter.modules.items():
        key = f"diffusion_model.{module}"
        tensors |= {f"{key}.lora_A.weight": factors.a, f"{key}.lora_B.weight": factors.b}
    save_file(tensors, file)
    return file


def test_kohya_comfyui_and_peft_adapters_of_sdxl_meet_in_every_module(tmp_path: Path) -> None:
    ours = sgm_adapter()
    kohya = open_adapter(save_kohya(ours, tmp_path / "kohya.safetensors"))
    comfyui = open_adapter(save_comfyui(ours, tmp_path / "comfyui.safetensors"))
    peft = Adapter({other: ours.modules[path] for path, other in BY_HAND.items()}, name="peft")
    assert set(kohya.shapes) == set(flat(BY_HAND).values())
    assert set(comfyui.shapes) == set(BY_HAND.values())
    merged = merge([kohya, comfyui, peft], weights=[0.5, 0.25, 0.25], space="delta")
    assert set(merged.shapes) == set(BY_HAND.values())
    for path, other in BY_HAND.items():
        # the alpha of 2 to a rank of 4 halves kohya's
        np.testing.assert_allclose(
            delta(merged.modules[other]), 0.75 * delta(ours.modules[path]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("format", ["peft", "diffusers", "kohya"])
def test_it_is_written_in_every_format_under_the_names_of_diffusers(format: str, tmp_path: Path) -> None:
    kohya = open_adapter(save_kohya(sgm_adapter(), tmp_path / "kohya.safetensors"))
    write_adapter(kohya, tmp_path / "out", format)
    back = open_adapter(tmp_path / "out")
    names = flat(BY_HAND) if format == "kohya" else BY_HAND
    assert set(back.shapes) == set(names.values())


def test_a_module_under_both_its_names_is_refused(tmp_path: Path) -> None:
    both = (f"input_blocks.4.1.{TO_Q}", f"down_blocks.1.attentions.0.{TO_Q}")
    adapter = Adapter({path: random_factors(0, 6, 8) for path in both})
    for file in (
        save_kohya(adapter, tmp_path / "a.safetensors"),
        save_comfyui(adapter, tmp_path / "b.safetensors"),
    ):
        with pytest.raises(Refusal, match=r"down_blocks[._]1.* are one (module|tensor)"):
            open_adapter(file)
