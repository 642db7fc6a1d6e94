"""Which PaliGemma a config.json describes, with the fields that Hub files leave out filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal

_GENERATIONS = {"gemma": 1, "gemma2": 2}
_SECOND_GENERATION = {
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
}
_LAYER_TYPES = ("sliding_attention", "full_attention")
_TANH_GELU = ("gelu_pytorch_tanh", "gelu_fast", "gelu_new")
_WAY_ON = "use a PaliGemma checkpoint in Hugging Face layout, such as google/paligemma-3b-pt-224"


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP: sizes of the vision tower."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int = 224
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def image_tokens(self) -> int:
        """Tokens that one image becomes."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class TextConfig:
    """Gemma 1 or 2: sizes of the language tower.

    Attributes:
        vocab_size: rows of the embedding.
        generation: 1 or 2; the second norms what attention and feed-forward return as well.
        query_pre_attn_scalar: queries are divided by its root; None means `head_dim`.
        attn_logit_softcapping: c in c tanh(score / c), before the mask; None for none.
        final_logit_softcapping: the same for the logits.
        sliding_window: tokens that a suffix token sees back in every other layer, the first among them.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e4
    generation: int = 1
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None

    @property
    def query_scale(self) -> float:
        """What queries are multiplied by."""
        return float(self.query_pre_attn_scalar or self.head_dim) ** -0.5


@dataclass(frozen=True)
class PaliGemmaConfig:
    """A whole model: both towers and the token ids that the forward pass needs.

    Hashable, so that jitted functions take it as a static argument.
    """

    vision: VisionConfig
    text: TextConfig
    image_token_index: int = 257152
    pad_token_id: int = 0
    eos_token_id: int = 1
    bos_token_id: int = 2

    @classmethod
    def from_file(cls, folder: Path) -> "PaliGemmaConfig":
        """Read `folder`/config.json.

        Raises:
            Refusal: the file is missing, is not JSON, or describes a model that is not PaliGemma.
        """
        path = folder / "config.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refusal(
                f"{folder} has no config.json", "name a folder with a PaliGemma checkpoint"
            ) from None
        except ValueError as fault:
            raise Refusal(f"{path} is not JSON: {fault}", "fetch the checkpoint again") from fault
        if not isinstance(fields, dict):
            raise Refusal(f"{path} is not an object", "fetch the checkpoint again")
        return cls.from_dict(fields, str(path))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "config.json") -> "PaliGemmaConfig":
        """Read the parsed config.json; `source` is named in refusals."""
        _expect(source, "model_type", fields.get("model_type"), ("paligemma",))
        for name in ("vision_config", "text_config"):
            if not isinstance(fields.get(name), Mapping):
                raise Refusal(f"{source} has no {name}", _WAY_ON)
        if "quantization_config" in fields:
            raise Refusal(f"{source}: quantization_config: quantised weights cannot be read", _WAY_ON)
        config = cls(
            vision=_vision(fields["vision_config"], f"{source}: vision_config"),
            text=_text(fields["text_config"], f"{source}: text_config"),
            **{
                name: int(fields[name])
                for name in ("image_token_index", "pad_token_id", "eos_token_id", "bos_token_id")
                if fields.get(name) is not None
            },
        )
        _check_sizes(config, source)
        for place in (fields, fields["vision_config"]):
            width = place.get("projection_dim")
            if width not in (None, config.text.hidden_size):
                raise Refusal(
                    f"{source}: projection_dim is {width}, the text hidden_size {config.text.hidden_size}",
                    _WAY_ON,
                )
        _expect(source, "tie_word_embeddings", fields.get("tie_word_embeddings", True), (True,))
        return config

    def to_json(self) -> str:
        """Return the text of a config.json that transformers reads as this model."""
        vision, text = self.vision, self.text
        fields = {
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "hidden_size": text.hidden_size,
            "image_token_index": self.image_token_index,
            "model_type": "paligemma",
            "pad_token_id": self.pad_token_id,
            "projection_dim": text.hidden_size,
            "text_config": {
                **_text_fields(text),
                "num_image_tokens": vision.image_tokens,
            },
            "vision_config": {
                **vars(vision),
                "hidden_act": "gelu_pytorch_tanh",
                "model_type": "siglip_vision_model",
                "num_image_tokens": vision.image_tokens,
                "projection_dim": text.hidden_size,
                "vision_use_head": False,
            },
        }
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _vision(fields: Mapping[str, Any], source: str) -> VisionConfig:
    _expect(source, "model_type", fields.get("model_type"), ("siglip_vision_model",))
    _expect(source, "hidden_act", fields.get("hidden_act", _TANH_GELU[0]), _TANH_GELU)
    _expect(source, "num_channels", fields.get("num_channels", 3), (3,))
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return VisionConfig(
        **_required(fields, names, source),
        image_size=int(fields.get("image_size", 224)),
        patch_size=int(fields.get("patch_size", 14)),
        layer_norm_eps=float(fields.get("layer_norm_eps", 1e-6)),
    )


def _text(fields: Mapping[str, Any], source: str) -> TextConfig:
    _expect(source, "model_type", fields.get("model_type"), tuple(_GENERATIONS))
    # The releases say "gelu" and mean the tanh form; transformers reads them so too.
    activation = fields.get("hidden_activation") or fields.get("hidden_act", "gelu")
    _expect(source, "hidden_act", activation, (*_TANH_GELU, "gelu"))
    _expect(source, "attention_bias", fields.get("attention_bias", False), (False,))
    _expect(source, "use_bidirectional_attention", fields.get("use_bidirectional_attention"), (None, True))
    _expect(source, "tie_word_embeddings", fields.get("tie_word_embeddings", True), (True,))
    _expect(source, "rope_scaling", fields.get("rope_scaling"), (None,))
    rope = fields.get("rope_parameters") or {}
    _expect(source, "rope_parameters.rope_type", rope.get("rope_type", "default"), ("default",))
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return TextConfig(
        **_required(fields, names, source),
        head_dim=int(fields.get("head_dim", 256)),
        rms_norm_eps=float(fields.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta", fields.get("rope_theta", 1e4))),
        **(_second_generation(fields, source) if fields["model_type"] == "gemma2" else {}),
    )


def _second_generation(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    layers = fields.get("num_hidden_layers")
    alternating = [_LAYER_TYPES[layer % 2] for layer in range(layers if isinstance(layers, int) else 0)]
    _expect(source, "layer_types", fields.get("layer_types"), (None, alternating))
    chosen = {name: fields.get(name, default) for name, default in _SECOND_GENERATION.items()}
    wrong = [name for name, value in chosen.items() if value is not None and not _is_positive(value)]
    if wrong:
        raise Refusal(f"{source}: {wrong[0]} is {chosen[wrong[0]]!r}, not a positive number", _WAY_ON)
    return {"generation": 2, **chosen}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _text_fields(text: TextConfig) -> dict[str, Any]:
    """The fields of a text_config that transformers reads as this tower."""
    fields = dict(vars(text))
    generation = fields.pop("generation")
    activation = "hidden_activation"
    if generation == 1:
        fields = {name: value for name, value in fields.items() if name not in _SECOND_GENERATION}
        activation = "hidden_act"
    names = {number: name for name, number in _GENERATIONS.items()}
    return {**fields, "model_type": names[generation], activation: "gelu_pytorch_tanh"}


def _required(fields: Mapping[str, Any], names: tuple[str, ...], source: str) -> dict[str, int]:
    missing = [name for name in names if not isinstance(fields.get(name), int)]
    if missing:
        raise Refusal(f"{source} lacks {', '.join(missing)}", "fetch the checkpoint's own config.json again")
    return {name: fields[name] for name in names}


def _expect(source: str, field: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        wanted = " or ".join(repr(one) for one in allowed)
        raise Refusal(f"{source}: {field} is {value!r}, only {wanted} is supported", _WAY_ON)


def _check_sizes(config: PaliGemmaConfig, source: str) -> None:
    vision, text = config.vision, config.text
    for whole, part in (
        ("vision_config: image_size", "patch_size"),
        ("vision_config: hidden_size", "num_attention_heads"),
        ("text_config: num_attention_heads", "num_key_value_heads"),
    ):
        tower = vision if whole.startswith("vision") else text
        field = whole.split()[-1]
        if getattr(tower, field) % getattr(tower, part):
            raise Refusal(
                f"{source}: {whole} {getattr(tower, field)} is no multiple of {part} {getattr(tower, part)}",
                _WAY_ON,
            )
    if text.head_dim % 2:
        raise Refusal(f"{source}: text_config: head_dim {text.head_dim} is odd", _WAY_ON)
