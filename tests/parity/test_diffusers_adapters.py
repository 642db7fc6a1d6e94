"""Adapters against diffusers on random models of its own: what it saves we read, what we write it loads."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter, write_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.module_names import canonical_id
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
from diffusers.training_utils import _collate_lora_metadata  # noqa: E402
from diffusers.utils import convert_state_dict_to_diffusers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

# peft 0.21 asks transformers 5 for a property that is on its way out, diffusers 0.42 torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("no_complaints"),
]

ATTENTION_TARGETS = ["to_q", "to_k", "to_out.0"]
UNET_TARGETS = [*ATTENTION_TARGETS, "proj_in", "conv1", "conv_in", "ff.net.0.proj", "time_emb_proj"]
TEXT_TARGETS = ["q_proj", "out_proj", "fc1"]
VARIANTS: dict[str, dict[str, Any]] = {
    "alpha = r": {"r": 4, "lora_alpha": 4},
    "alpha = 2 r": {"r": 4, "lora_alpha": 8},
    "rsLoRA": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "rank pattern": {"r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 2, "fc1": 3, "conv1": 6}},
    "both patterns": {
        "r": 3,
        "lora_alpha": 5,
        "rank_pattern": {"to_k": 5, "q_proj": 2},
        "alpha_pattern": {"to_out.0": 2, "fc1": 1},
    },
}


class StableDiffusion(loaders.StableDiffusionLoraLoaderMixin):
    """The two models of a pipeline that take adapters."""

    hf_device_map = None

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        self.text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=12,
                intermediate_size=20,
                num_hidden_layers=2,
                num_attention_heads=2,
                vocab_size=50,
                max_position_embeddings=8,
                bos_token_id=0,
                eos_token_id=1,
            )
        )
        self.components = {"unet": self.unet, "text_encoder": self.text_encoder}

    def forward(self) -> Any:
        with torch.no_grad():
            torch.manual_seed(5)
            text = self.text_encoder(torch.tensor([[0, 7, 9, 1]])).last_hidden_state
            return self.unet(torch.randn(1, 4, 8, 8), 10, text).sample.numpy()


class Flux(loaders.FluxLoraLoaderMixin):
    hf_device_map = None
    text_encoder = None

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.transformer = diffusers.FluxTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=12,
            axes_dims_rope=(2, 2, 4),
        )
        self.components = {"transformer": self.transformer}

    def forward(self) -> Any:
        with torch.no_grad():
            torch.manual_seed(5)
            return self.transformer(
                hidden_states=torch.randn(1, 4, 4),
                encoder_hidden_states=torch.randn(1, 3, 12),
                pooled_projections=torch.randn(1, 12),
                timestep=torch.tensor([0.5]),
                img_ids=torch.zeros(4, 3),
                txt_ids=torch.zeros(3, 3),
            ).sample.numpy()


def trained(pipeline: Any, targets: dict[str, list[str]], **config: Any) -> Any:
    """The pipeline with a random adapter in each component."""
    torch.manual_seed(1)
    for component, names in targets.items():
        model = pipeline.components[component]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
            model.add_adapter(peft.LoraConfig(target_modules=names, **config))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.2)
    return pipeline


def trained_stable_diffusion(targets: list[str] = UNET_TARGETS, **config: Any) -> Any:
    return trained(StableDiffusion(), {"unet": targets, "text_encoder": TEXT_TARGETS}, **config)


def trained_flux(**config: Any) -> Any:
    return trained(
        Flux(), {"transformer": ["to_q", "to_out.0", "proj_mlp", "x_embedder", "proj_out"]}, **config
    )


def layers(model: Any, style: str) -> dict[str, Any]:
    state = {name: value.contiguous() for name, value in peft.get_peft_model_state_dict(model).items()}
    return state if style == "new" else convert_state_dict_to_diffusers(state)


def save_with_diffusers(pipeline: Any, folder: Path, style: str = "new", metadata: bool = True) -> None:
    said = _collate_lora_metadata(pipeline.components) if metadata else {}
    parts = {f"{name}_lora_layers": layers(model, style) for name, model in pipeline.components.items()}
    pipeline.save_lora_weights(folder, **parts, **said)


def deltas_in(pipeline: Any) -> dict[str, Any]:
    """The deltas that peft computes in each component, by canonical id."""
    found = {}
    for component, model in pipeline.components.items():
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight"):
                (adapter,) = module.active_adapters
                id = canonical_id(f"{component}.{name}") if component == "text_encoder" else name
                delta = module.get_delta_weight(adapter).detach().numpy()
                found[id] = delta.reshape(len(delta), -1)
    return found


def deltas_of(adapter: Adapter) -> dict[str, Any]:
    return {module: delta(factors) for module, factors in adapter.modules.items()}


def loaded(pipeline: Any, path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipeline.load_lora_weights(path)
    return pipeline


def assert_same_deltas(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert theirs
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        np.testing.assert_allclose(ours[module], expected, rtol=1e-5, atol=1e-5, err_msg=module)


@pytest.mark.parametrize("style", ["new", "old"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_diffusers_saves_is_read_with_the_delta_peft_computes(
    variant: str, style: str, tmp_path: Path
) -> None:
    pipeline = trained_stable_diffusion(**VARIANTS[variant])
    save_with_diffusers(pipeline, tmp_path, style)
    assert_same_deltas(deltas_of(open_adapter(tmp_path)), deltas_in(pipeline))


@pytest.mark.parametrize("style", ["new", "old"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_metadata_it_is_read_as_diffusers_reads_it(variant: str, style: str, tmp_path: Path) -> None:
    # of the old style diffusers takes factors outside attention for new ones, and then overlooks the rest
    targets = ATTENTION_TARGETS if style == "old" else UNET_TARGETS
    save_with_diffusers(
        trained_stable_diffusion(targets, **VARIANTS[variant]), tmp_path, style, metadata=False
    )
    assert_same_deltas(deltas_of(open_adapter(tmp_path)), deltas_in(loaded(StableDiffusion(), tmp_path)))


def test_the_names_of_attention_processors_are_read_as_diffusers_reads_them(tmp_path: Path) -> None:
    pipeline = trained(StableDiffusion(), {"unet": ["to_q", "to_k", "to_v", "to_out.0"]}, r=4, lora_alpha=4)
    ends = {"lora_A": "_lora.down", "lora_B": "_lora.up"}
    tensors = {}
    for name, value in layers(pipeline.unet, "new").items():
        module, _, factor = name.removesuffix(".weight").rpartition(".")
        attention, _, projection = module.replace("to_out.0", "to_out").rpartition(".")
        tensors[f"unet.{attention}.processor.{projection}{ends[factor]}.weight"] = value
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    adapter = open_adapter(tmp_path)
    del pipeline.components["text_encoder"]
    assert_same_deltas(deltas_of(adapter), deltas_in(pipeline))
    fresh = StableDiffusion()
    fresh.unet.load_lora_adapter(load_file(tmp_path / "pytorch_lora_weights.safetensors"), prefix="unet")
    assert_same_deltas(deltas_of(adapter), deltas_in(fresh))


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_write_diffusers_loads_whole_with_the_same_forward(
    variant: str, compact: bool, tmp_path: Path
) -> None:
    pipeline = trained_stable_diffusion(**VARIANTS[variant])
    save_with_diffusers(pipeline, tmp_path / "a")
    ours = tmp_path / "ours"
    write_adapter(open_adapter(tmp_path / "a"), ours, "diffusers", WriteOptions(compact=compact))
    fresh = loaded(StableDiffusion(), ours)
    assert_same_deltas(deltas_in(fresh), deltas_in(pipeline))
    np.testing.assert_allclose(fresh.forward(), pipeline.forward(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_kohya_file_is_converted_by_diffusers_with_the_same_forward(variant: str, tmp_path: Path) -> None:
    pipeline = trained_stable_diffusion(**VARIANTS[variant])
    save_with_diffusers(pipeline, tmp_path / "a")
    write_adapter(open_adapter(tmp_path / "a"), tmp_path / "ours.safetensors", "kohya")
    fresh = loaded(StableDiffusion(), tmp_path / "ours.safetensors")
    assert_same_deltas(deltas_in(fresh), deltas_in(pipeline))
    np.testing.assert_allclose(fresh.forward(), pipeline.forward(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning")
def test_alphas_that_differ_are_what_diffusers_misreads_and_the_serving_rule_tells(tmp_path: Path) -> None:
    pipeline = trained_stable_diffusion(**VARIANTS["rank pattern"])
    save_with_diffusers(pipeline, tmp_path / "a")
    file = tmp_path / "compact.safetensors"
    write_adapter(open_adapter(tmp_path / "a"), file, "kohya", WriteOptions(compact=True))
    due = deltas_in(pipeline)
    assert_same_deltas(
        {id.replace(".", "_"): delta for id, delta in deltas_of(open_adapter(file)).items()},
        {id.replace(".", "_"): delta for id, delta in due.items()},
    )
    found = deltas_in(loaded(StableDiffusion(), file))
    assert any(not np.allclose(found[id], due[id], atol=1e-5) for id in due)
    assert [finding.rule for finding in check_serving(str(file), "diffusers").findings] == ["alphas"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_transformer_goes_both_ways(variant: str, tmp_path: Path) -> None:
    pipeline = trained_flux(**VARIANTS[variant])
    save_with_diffusers(pipeline, tmp_path / "a")
    adapter = open_adapter(tmp_path / "a")
    assert_same_deltas(deltas_of(adapter), deltas_in(pipeline))
    write_adapter(adapter, tmp_path / "ours", "diffusers")
    fresh = loaded(Flux(), tmp_path / "ours")
    assert_same_deltas(deltas_in(fresh), deltas_in(pipeline))
    np.testing.assert_allclose(fresh.forward(), pipeline.forward(), rtol=1e-4, atol=1e-5)


def test_a_model_that_saves_itself_is_read_without_a_component(tmp_path: Path) -> None:
    pipeline = trained_flux(**VARIANTS["both patterns"])
    pipeline.transformer.save_lora_adapter(tmp_path)
    assert_same_deltas(deltas_of(open_adapter(tmp_path)), deltas_in(pipeline))


def test_one_unet_has_the_same_modules_in_three_formats_and_they_merge(tmp_path: Path) -> None:
    pipeline = trained(StableDiffusion(), {"unet": UNET_TARGETS}, **VARIANTS["both patterns"])
    del pipeline.components["text_encoder"]
    save_with_diffusers(pipeline, tmp_path / "diffusers")
    write_adapter(open_adapter(tmp_path / "diffusers"), tmp_path / "kohya.safetensors", "kohya")
    wrapped = peft.get_peft_model(
        StableDiffusion().unet, peft.LoraConfig(target_modules=UNET_TARGETS, r=4, lora_alpha=8)
    )
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    wrapped.save_pretrained(tmp_path / "peft")
    theirs = deltas_in(pipeline)
    other = deltas_of(open_adapter(tmp_path / "peft"))
    adapters = [open_adapter(tmp_path / name) for name in ("kohya.safetensors", "peft", "diffusers")]
    merged = merge(adapters, weights=[0.5, 0.25, 0.25], space="delta")
    assert_same_deltas(
        deltas_of(merged), {module: 0.75 * theirs[module] + 0.25 * other[module] for module in theirs}
    )
