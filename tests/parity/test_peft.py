"""Adapters against the peft library on a random PaliGemma: what it saves we read, what we save it loads."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.adapters.module_names import canonical_id, tower
from pamctl.merging import merge
from tests.adapter_cases import delta, saved

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# peft 0.21 asks transformers 5 for a property that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

TARGETS = (
    r".*(language_model.*(q_proj|gate_proj|down_proj)|vision_tower.*(q_proj|out_proj|fc1)|projector\.linear)"
)
VARIANTS: dict[str, dict[str, Any]] = {
    "alpha = r": {"r": 4, "lora_alpha": 4},
    "alpha = 2 r": {"r": 4, "lora_alpha": 8},
    "rsLoRA": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "rank pattern": {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.fc1": 6}},
    "alpha pattern": {"r": 4, "lora_alpha": 8, "alpha_pattern": {".*q_proj": 1, r"self_attn\..*": 3}},
    "both and rsLoRA": {
        "r": 3,
        "lora_alpha": 5,
        "rank_pattern": {"gate_proj": 5},
        "alpha_pattern": {"linear": 2},
        "use_rslora": True,
    },
}


def random_base() -> Any:
    torch.manual_seed(0)
    text = {
        "model_type": "gemma",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 100,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.PaliGemmaConfig(
        text_config=text, vision_config=vision, projection_dim=32, image_token_index=99, vocab_size=100
    )
    return transformers.PaliGemmaForConditionalGeneration(config)


def save_with_peft(folder: Path, seed: int, **config: Any) -> dict[str, Any]:
    """Save a random adapter as peft does; the deltas peft computes, by canonical id."""
    model = peft.get_peft_model(
        random_base(), peft.LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **config)
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    model.save_pretrained(folder)
    return deltas_of(model)


def deltas_of(model: Any) -> dict[str, Any]:
    return {
        canonical_id(name.removeprefix("base_model.model.")): module.get_delta_weight("default")
        .detach()
        .numpy()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def load_with_peft(folder: Path) -> Any:
    """Load in peft, where a missing or unexpected key, of which it only warns, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = peft.PeftModel.from_pretrained(random_base(), folder)
    report = peft.set_peft_model_state_dict(model, peft.utils.load_peft_weights(str(folder)))
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "lora_" in key]
    return model


def assert_same_deltas(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        np.testing.assert_allclose(ours[module], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_peft_saves_is_read_with_the_delta_peft_computes(variant: str, tmp_path: Path) -> None:
    theirs = save_with_peft(tmp_path / "a", 1, **VARIANTS[variant])
    opened = open_adapter(tmp_path / "a")
    assert {tower(module) for module in theirs} == {"language_model", "vision_tower", "multi_modal_projector"}
    assert_same_deltas({module: delta(factors) for module, factors in opened.modules.items()}, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_save_peft_loads_whole_with_the_same_delta(variant: str, tmp_path: Path) -> None:
    theirs = save_with_peft(tmp_path / "a", 1, **VARIANTS[variant])
    ours = saved(open_adapter(tmp_path / "a"), tmp_path / "b")
    assert_same_deltas(deltas_of(load_with_peft(ours)), theirs)


def test_adapters_of_peft_merge_to_the_mean_of_the_deltas_peft_computes(tmp_path: Path) -> None:
    one = save_with_peft(tmp_path / "one", 1, **VARIANTS["alpha = 2 r"])
    two = save_with_peft(tmp_path / "two", 2, **VARIANTS["both and rsLoRA"])
    merged = saved(
        merge([open_adapter(tmp_path / "one"), open_adapter(tmp_path / "two")]), tmp_path / "merged"
    )
    assert_same_deltas(
        deltas_of(load_with_peft(merged)), {module: (one[module] + two[module]) / 2 for module in one}
    )


def test_a_text_only_adapter_adapts_no_other_tower_in_peft(tmp_path: Path) -> None:
    save_with_peft(tmp_path / "a", 1)
    opened = open_adapter(tmp_path / "a")
    text = type(opened)({m: f for m, f in opened.modules.items() if m.startswith("language_model")})
    loaded = deltas_of(load_with_peft(saved(text, tmp_path / "b")))
    assert loaded.keys() == text.shapes.keys()
    assert any("q_proj" in module for module in loaded)
