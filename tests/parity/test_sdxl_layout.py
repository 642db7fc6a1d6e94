"""SGM's names of a UNet's modules against diffusers: its own conversions, its module trees and its loader."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import open_adapter, write_adapter
from pamctl.adapters.flattening import flattened
from pamctl.adapters.module_names import canonical_id
from pamctl.adapters.sgm_names import diffusers_paths, sgm_table
from pamctl.merging import merge
from pamctl.serving import check_serving
from tests.adapter_cases import delta

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    loaders = pytest.importorskip("diffusers.loaders")
from diffusers.loaders.lora_conversion_utils import (  # noqa: E402
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

# peft 0.21 asks transformers 5 for a property that is on its way out, diffusers 0.42 torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("no_complaints"),
]

DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
# As published: channels, transformer blocks a level (0: no attention), width of the text, whether the
# projections of an attention are linear, and what the label's embedding takes.
UNETS: dict[str, dict[str, Any]] = {
    "SDXL": {"channels": (320, 640, 1280), "depths": (0, 2, 10), "text": 2048, "linear": True, "label": 2816},
    "SDXL refiner": {
        "channels": (384, 768, 1536, 1536),
        "depths": (0, 4, 4, 0),
        "text": 1280,
        "linear": True,
        "label": 2560,
    },
    "Stable Diffusion 1 and 2": {
        "channels": (320, 640, 1280, 1280),
        "depths": (1, 1, 1, 0),
        "text": 768,
        "linear": False,
        "label": None,
    },
}
TEXT_SIZES = {"self_attn.q_proj": (12, 12), "self_attn.out_proj": (12, 12), "mlp.fc1": (20, 12)}
TINY = {"channels": (8, 16, 32), "depths": (0, 2, 3), "text": 12, "linear": True, "label": 40}


def diffusers_unet(
    channels: tuple[int, ...], depths: tuple[int, ...], text: int, linear: bool, label: int | None
) -> Any:
    attended = [depth > 0 for depth in depths]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": label,
    }
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=tuple(DOWN[attention] for attention in attended),
        up_block_types=tuple(UP[attention] for attention in reversed(attended)),
        transformer_layers_per_block=tuple(max(depth, 1) for depth in depths),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=text,
        attention_head_dim=4,
        use_linear_projection=linear,
        norm_num_groups=4,
        **(added if label else {}),
    )


def modules_of(unet: Any) -> dict[str, tuple[int, ...]]:
    """The weight's shape of every linear and convolution."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        name: tuple(module.weight.shape) for name, module in unet.named_modules() if isinstance(module, kinds)
    }


def sgm_modules(
    channels: tuple[int, ...], depths: tuple[int, ...], text: int, linear: bool, label: int | None
) -> dict[str, tuple[int, ...]]:
    """The same of the UNet as published, built up as the constructor of its authors does.

    That goes down and up through one list of blocks with a stack of their channels, and knows no levels.
    """
    time = 4 * channels[0]
    found: dict[str, tuple[int, ...]] = {
        "time_embed.0": (time, channels[0]),
        "time_embed.2": (time, time),
        "input_blocks.0.0": (channels[0], 4, 3, 3),
        "out.2": (4, channels[0], 3, 3),
    }
    if label:
        found |= {"label_emb.0.0": (time, label), "label_emb.0.2": (time, time)}

    def resnet(path: str, inputs: int, outputs: int) -> None:
        found[f"{path}.in_layers.2"] = (outputs, inputs, 3, 3)
        found[f"{path}.emb_layers.1"] = (outputs, time)
        found[f"{path}.out_layers.3"] = (outputs, outputs, 3, 3)
        if inputs != outputs:
            found[f"{path}.skip_connection"] = (outputs, inputs, 1, 1)

    def attention(path: str, size: int, depth: int) -> None:
        for index in range(depth):
            block = f"{path}.transformer_blocks.{index}"
            for name, width in (("attn1", size), ("attn2", text)):
                found[f"{block}.{name}.to_q"] = found[f"{block}.{name}.to_out.0"] = (size, size)
                found[f"{block}.{name}.to_k"] = found[f"{block}.{name}.to_v"] = (size, width)
            found[f"{block}.ff.net.0.proj"] = (8 * size, size)
            found[f"{block}.ff.net.2"] = (size, 4 * size)
        found[f"{path}.proj_in"] = found[f"{path}.proj_out"] = (size, size) if linear else (size, size, 1, 1)

    stack, size, block = [channels[0]], channels[0], 0
    for level, (outputs, depth) in enumerate(zip(channels, depths, strict=True)):
        for _ in range(2):
            block += 1
            resnet(f"input_blocks.{block}.0", size, outputs)
            if depth:
                attention(f"input_blocks.{block}.1", outputs, depth)
            size = outputs
            stack.append(size)
        if level < len(channels) - 1:
            block += 1
            found[f"input_blocks.{block}.0.op"] = (size, size, 3, 3)
            stack.append(size)
    resnet("middle_block.0", size, size)
    attention("middle_block.1", size, max(depths) if label else 1)
    resnet("middle_block.2", size, size)
    block = -1
    for level in reversed(range(len(channels))):
        for index in range(3):
            block += 1
            resnet(f"output_blocks.{block}.0", size + stack.pop(), channels[level])
            size, position = channels[level], 1
            if depths[level]:
                attention(f"output_blocks.{block}.1", size, depths[level])
                position = 2
            if level and index == 2:
                found[f"output_blocks.{block}.{position}.conv"] = (size, size, 3, 3)
    return found


def middle_as_published(unet: dict[str, tuple[int, ...]], depth: int) -> dict[str, tuple[int, ...]]:
    """diffusers takes the middle's depth from the last level, which in two of the UNets has no attention."""
    first = "mid_block.attentions.0.transformer_blocks."
    block = {name: shape for name, shape in unet.items() if name.startswith(f"{first}0.")}
    others = {name: shape for name, shape in unet.items() if not name.startswith(first)}
    numbered = {
        name.replace(f"{first}0.", f"{first}{index}."): shape
        for index in range(depth)
        for name, shape in block.items()
    }
    return others | numbered


@pytest.mark.parametrize("name", UNETS)
def test_every_module_of_the_unet_is_named_and_has_the_shape_it_has_in_diffusers(name: str) -> None:
    published = sgm_modules(**UNETS[name])
    with torch.device("meta"):
        theirs = modules_of(diffusers_unet(**UNETS[name]))
    theirs = middle_as_published(theirs, max(UNETS[name]["depths"]) if UNETS[name]["label"] else 1)
    paths = diffusers_paths(published)
    assert {paths[path]: shape for path, shape in published.items()} == theirs
    flat = diffusers_paths([flattened(path) for path in published])
    assert flat == {flattened(path): flattened(other) for path, other in paths.items()}
    # beyond these the table has but the shortcuts of resnets that keep their channels
    assert {path.rpartition(".")[2] for path in sgm_table(name).keys() - published} == {"skip_connection"}


@pytest.mark.parametrize("name", UNETS)
def test_a_checkpoint_is_converted_by_diffusers_to_the_same_names(name: str) -> None:
    published = sgm_modules(**UNETS[name])
    checkpoint = {
        f"model.diffusion_model.{path}.{end}": path for path in published for end in ("weight", "bias")
    }
    config = {"layers_per_block": 2}
    if UNETS[name]["label"]:
        config |= {"addition_embed_type": "text_time"}
    converted = convert_ldm_unet_checkpoint(checkpoint, config)
    landed = {path: other.rpartition(".")[0] for other, path in converted.items()}
    assert landed == diffusers_paths(published)


def test_an_adapter_is_converted_by_diffusers_to_the_same_names() -> None:
    published = sgm_modules(**UNETS["SDXL"])
    one = torch.ones(1, 1)
    state = {}
    for path in published:
        key = f"lora_unet_{flattened(path)}"
        state |= {f"{key}.lora_down.weight": one, f"{key}.lora_up.weight": one}
    with torch.device("meta"):
        config = diffusers_unet(**UNETS["SDXL"]).config
    converted, _ = _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(state, config))
    found = {name.removeprefix("unet.") for name in converted if name.endswith(".down.weight")}
    theirs = {
        name.removesuffix(".down.weight")
        .replace(".processor.", ".")
        .replace("to_out_lora", "to_out.0")
        .removesuffix("_lora")
        .removesuffix(".lora")
        for name in found
    }
    assert theirs == set(diffusers_paths(published).values())


class StableDiffusionXL(loaders.StableDiffusionXLLoraLoaderMixin):
    """The three models of a pipeline that take adapters, in SDXL's layout but small."""

    hf_device_map = None

    def __init__(self) -> None:
        torch.manual_seed(0)
        text = transformers.CLIPTextConfig(
            hidden_size=12,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=16,
            vocab_size=50,
            max_position_embeddings=8,
            bos_token_id=0,
            eos_token_id=1,
        )
        self.unet = diffusers_unet(**TINY)
        self.text_encoder = transformers.CLIPTextModel(text)
        self.text_encoder_2 = transformers.CLIPTextModelWithProjection(text)
        self.components = {name: getattr(self, name) for name in ("unet", "text_encoder", "text_encoder_2")}

    def forward(self) -> Any:
        with torch.no_grad():
            torch.manual_seed(5)
            tokens = torch.tensor([[0, 7, 9, 1]])
            pooled = self.text_encoder_2(tokens)
            added = {"text_embeds": pooled.text_embeds, "time_ids": torch.randn(1, 6)}
            text = self.text_encoder(tokens).last_hidden_state + pooled.last_hidden_state
            return self.unet(torch.randn(1, 4, 8, 8), 10, text, added_cond_kwargs=added).sample.numpy()

    def deltas(self) -> dict[str, Any]:
        """The deltas that peft computes in each component, by canonical id."""
        found = {}
        for component, model in self.components.items():
            for name, module in model.named_modules():
                if hasattr(module, "get_delta_weight"):
                    (adapter,) = module.active_adapters
                    id = name if component == "unet" else canonical_id(f"{component}.{name}")
                    found[id] = module.get_delta_weight(adapter).detach().flatten(1).numpy()
        return found


def save_as_kohya(file: Path, left_out: str = "none") -> dict[str, Any]:
    """A random adapter of every module as sd-scripts writes it, at half strength; its deltas by id."""
    published = {path: shape for path, shape in sgm_modules(**TINY).items() if left_out not in path}
    named = {
        f"lora_unet_{flattened(path)}": (id, published[path])
        for path, id in diffusers_paths(published).items()
    }
    for prefix, component in (("lora_te1", "text_encoder"), ("lora_te2", "text_encoder_2")):
        for path, shape in TEXT_SIZES.items():
            path = f"text_model.encoder.layers.1.{path}"
            named[f"{prefix}_{flattened(path)}"] = (f"{component}.{path}", shape)
    torch.manual_seed(1)
    tensors, deltas = {}, {}
    for key, (id, (outputs, inputs, *kernel)) in named.items():
        down = torch.randn(4, inputs, *kernel) * 0.2
        up = torch.randn(outputs, 4, *(1 for _ in kernel)) * 0.2
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        deltas[id] = (0.5 * up.flatten(1).double() @ down.flatten(1).double()).numpy()
    save_file(tensors, file)
    return deltas


def loaded(path: Path) -> StableDiffusionXL:
    pipeline = StableDiffusionXL()
    pipeline.load_lora_weights(path)
    return pipeline


def assert_same_deltas(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        np.testing.assert_allclose(ours[module], expected, rtol=1e-5, atol=1e-6, err_msg=module)


def test_an_adapter_of_sd_scripts_merges_with_one_of_diffusers_in_every_module(tmp_path: Path) -> None:
    deltas = save_as_kohya(tmp_path / "kohya.safetensors")
    pipeline = StableDiffusionXL()
    unet, layers = modules_of(pipeline.unet), {}
    for component, model in pipeline.components.items():
        targets = unet if component == "unet" else [f"layers.1.{path}" for path in TEXT_SIZES]
        model.add_adapter(peft.LoraConfig(target_modules=sorted(targets), r=3, lora_alpha=3))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        layers[f"{component}_lora_layers"] = peft.get_peft_model_state_dict(model)
    pipeline.save_lora_weights(tmp_path / "diffusers", **layers)
    adapters = [open_adapter(tmp_path / name) for name in ("kohya.safetensors", "diffusers")]
    merged = merge(adapters, weights=[0.25, 0.75], space="delta")
    other = pipeline.deltas()
    assert_same_deltas(
        {module: delta(factors) for module, factors in merged.modules.items()},
        {module: 0.25 * deltas[module] + 0.75 * other[module] for module in other},
    )
    assert deltas.keys() == other.keys() >= unet.keys()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        ("lora_unet_add_embedding_linear_1", (32, 40)),
        ("lora_te1_text_model_encoder_layers_1_self_attn_q_proj", (12, 12)),
        ("lora_te2_text_model_encoder_layers_0_self_attn_v_proj", (12, 12)),
    ],
)
def test_names_that_diffusers_overlooks_are_told_by_the_serving_rule(
    module: str, shape: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = {"lora_unet_mid_block_attentions_0_proj_in": (32, 32)}
    if module.startswith("lora_te"):
        others[f"{module[:8]}_text_model_encoder_layers_1_mlp_fc1"] = (20, 12)
    tensors = {}
    for key, (outputs, inputs) in {**others, module: shape}.items():
        tensors |= {f"{key}.lora_down.weight": torch.randn(4, inputs), f"{key}.alpha": torch.tensor(4.0)}
        tensors[f"{key}.lora_up.weight"] = torch.randn(outputs, 4)
    save_file(tensors, tmp_path / "kohya.safetensors")
    (finding,) = check_serving(str(tmp_path / "kohya.safetensors"), "diffusers").findings
    assert (finding.rule, finding.where) == ("names", module)
    assert len(loaded(tmp_path / "kohya.safetensors").deltas()) == len(others)
    adapter = open_adapter(tmp_path / "kohya.safetensors")
    write_adapter(adapter, tmp_path / "mended.safetensors", "diffusers")
    assert check_serving(str(tmp_path / "mended.safetensors"), "diffusers").served
    assert len(loaded(tmp_path / "mended.safetensors").deltas()) == len(others) + 1
    caplog.clear()  # the complaints that are due, and those of the encoders that the file does not adapt


# Under diffusers' name for it diffusers 0.42 takes kohya's add_embedding.linear_1 for add.embedding.linear.
@pytest.mark.parametrize(("format", "left_out"), [("diffusers", "none"), ("kohya", "label_emb")])
def test_diffusers_loads_what_we_convert_as_it_loads_the_original(
    format: str, left_out: str, tmp_path: Path
) -> None:
    original, ours = tmp_path / "kohya.safetensors", tmp_path / "ours.safetensors"
    deltas = save_as_kohya(original, left_out)
    write_adapter(open_adapter(original), ours, format)
    assert not any("put_blocks" in name for name in load_file(ours))
    theirs, found = loaded(original), loaded(ours)
    assert_same_deltas(theirs.deltas(), deltas)
    assert_same_deltas(found.deltas(), deltas)
    assert np.abs(theirs.forward() - StableDiffusionXL().forward()).max() > 1e-2
    np.testing.assert_allclose(found.forward(), theirs.forward(), rtol=1e-4, atol=1e-5)
