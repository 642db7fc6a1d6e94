"""What a config.json is read as, and which ones are refused."""

import copy
import json

import pytest

from pamctl.models.config import PaliGemmaConfig
from pamctl.refusal import Refusal

HUB_3B = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "hidden_size": 2048,
    "image_token_index": 257152,
    "model_type": "paligemma",
    "pad_token_id": 0,
    "projection_dim": 2048,
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_image_tokens": 256,
        "num_key_value_heads": 1,
        "torch_dtype": "float32",
        "vocab_size": 257216,
    },
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "num_image_tokens": 256,
        "patch_size": 14,
        "projection_dim": 2048,
        "projector_hidden_act": "gelu_fast",
        "vision_use_head": False,
    },
}


def changed(path: str, value: object) -> dict:
    fields = copy.deepcopy(HUB_3B)
    *outer, last = path.split(".")
    place = fields
    for key in outer:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return fields


def test_sparse_hub_file_is_filled_in():
    config = PaliGemmaConfig.from_dict(HUB_3B)
    assert (config.text.head_dim, config.text.rms_norm_eps, config.text.rope_theta) == (256, 1e-6, 1e4)
    assert (config.vision.image_size, config.vision.layer_norm_eps, config.vision.head_dim) == (224, 1e-6, 72)
    assert config.vision.image_tokens == 256
    assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (0, 1, 2)


def test_written_config_reads_as_itself(tmp_path):
    config = PaliGemmaConfig.from_dict(HUB_3B)
    (tmp_path / "config.json").write_text(config.to_json())
    assert PaliGemmaConfig.from_file(tmp_path) == config
    assert hash(PaliGemmaConfig.from_file(tmp_path)) == hash(config)


@pytest.mark.parametrize(
    "fields",
    [
        changed("text_config.rope_theta", 5e5),
        changed("text_config.rope_parameters", {"rope_type": "default", "rope_theta": 5e5}),
    ],
)
def test_both_spellings_of_the_rope_base(fields):
    assert PaliGemmaConfig.from_dict(fields).text.rope_theta == 5e5


def second_generation(**text: object) -> dict:
    fields = changed("text_config.model_type", "gemma2")
    fields["text_config"] |= text
    return fields


def test_the_second_generation_is_filled_in_as_transformers_fills_it_in():
    text = PaliGemmaConfig.from_dict(second_generation()).text
    assert (text.generation, text.query_scale, text.sliding_window) == (2, 256**-0.5, 4096)
    assert (text.attn_logit_softcapping, text.final_logit_softcapping) == (50.0, 30.0)
    wide = second_generation(query_pre_attn_scalar=144, head_dim=128, final_logit_softcapping=None)
    text = PaliGemmaConfig.from_dict(wide).text
    assert (text.query_scale, text.head_dim, text.final_logit_softcapping) == (144**-0.5, 128, None)


def test_a_written_config_of_the_second_generation_reads_as_itself(tmp_path):
    config = PaliGemmaConfig.from_dict(second_generation(attn_logit_softcapping=None))
    (tmp_path / "config.json").write_text(config.to_json())
    assert PaliGemmaConfig.from_file(tmp_path) == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ({"final_logit_softcapping": 0}, "final_logit_softcapping is 0"),
        ({"sliding_window": "far"}, "sliding_window is 'far'"),
        ({"layer_types": ["full_attention"] * 18}, "layer_types"),
    ],
)
def test_what_the_second_generation_cannot_be_is_refused(text, named):
    with pytest.raises(Refusal, match=named):
        PaliGemmaConfig.from_dict(second_generation(**text))


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "gelu_fast"])
def test_gemma_reads_gelu_as_the_tanh_form(activation):
    fields = changed("text_config.hidden_act", activation)
    assert PaliGemmaConfig.from_dict(fields) == PaliGemmaConfig.from_dict(HUB_3B)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model_type", "llava", "model_type is 'llava'"),
        ("text_config.model_type", "llama", "text_config: model_type is 'llama'"),
        ("vision_config.model_type", "clip_vision_model", "'clip_vision_model'"),
        ("text_config", None, "no text_config"),
        ("text_config.vocab_size", None, "vocab_size"),
        ("vision_config.hidden_size", "wide", "hidden_size"),
        ("text_config.hidden_act", "silu", "hidden_act is 'silu'"),
        ("vision_config.hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("text_config.attention_bias", True, "attention_bias"),
        ("text_config.use_bidirectional_attention", False, "use_bidirectional_attention"),
        ("text_config.rope_scaling", {"type": "linear"}, "rope_scaling"),
        ("text_config.rope_parameters", {"rope_type": "yarn"}, "'yarn'"),
        ("tie_word_embeddings", False, "tie_word_embeddings"),
        ("quantization_config", {"bits": 4}, "quantization_config"),
        ("projection_dim", 1024, "projection_dim is 1024, the text hidden_size 2048"),
        ("vision_config.image_size", 225, "image_size 225 is no multiple of patch_size 14"),
        ("text_config.num_key_value_heads", 3, "no multiple of num_key_value_heads 3"),
        ("text_config.head_dim", 255, "head_dim 255 is odd"),
    ],
)
def test_other_models_are_refused_by_name(path, value, named):
    with pytest.raises(Refusal) as refused:
        PaliGemmaConfig.from_dict(changed(path, value), "there/config.json")
    assert named in refused.value.what
    assert "there/config.json" in refused.value.what


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(Refusal, match=r"no config\.json"):
        PaliGemmaConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(HUB_3B)[:-1])
    with pytest.raises(Refusal, match="is not JSON"):
        PaliGemmaConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(Refusal, match="is not an object"):
        PaliGemmaConfig.from_file(tmp_path)
