"""How much arithmetic a training step needs, and what share of a device's peak that is."""

import math
from dataclasses import dataclass

import jax

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.lora import Adaptable, adaptable, adapts_vision
from pamctl.models.paligemma import Lora

_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
}
"""Makers' dense bfloat16 operations a second, by what jax's `device_kind` begins with or holds."""


def peak_flops(devices: list[jax.Device]) -> float | None:
    """Return the peak of the devices together in bfloat16; None where one is not known."""
    peaks = [_peak_of(device.device_kind) for device in devices]
    return sum(peaks) if all(peaks) else None


def _peak_of(kind: str) -> float:
    return next((peak for name, peak in _PEAKS.items() if name in kind), 0.0)


@dataclass(frozen=True)
class StepWork:
    """The floating-point operations of one training step, by where its tokens are.

    Only what the mathematics needs counts: a forward pass, the gradient of activations as far back as factors
    are adapted, and that of the factors. What is computed again to save memory does not count.

    Attributes:
        per_example: of the vision tower, the projector and attention among image tokens.
        per_token: of the language tower, without attention.
        per_pair: of attention, for each token and each token of the same example.
        per_target: of the logits of one suffix token.
    """

    image_tokens: int
    per_example: float
    per_token: float
    per_pair: float
    per_target: float

    @classmethod
    def of(cls, config: PaliGemmaConfig, lora: Lora, *, features_given: bool, frames: int = 1) -> "StepWork":
        """Count for a model and the factors that are trained.

        Args:
            features_given: whether the vision tower's output is read instead of computed.
            frames: images an example.
        """
        vision, text = config.vision, config.text
        patches = vision.image_tokens
        sight = adapts_vision(lora)
        passes = 2 if sight else 0 if features_given else 1
        tower = _weights(config, "vision_tower") + 3 * vision.patch_size**2 * vision.hidden_size
        projector = vision.hidden_size * text.hidden_size
        attention = 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
        seen = 2 * patches * (tower + projector) + attention
        added = (
            6
            * patches
            * (_trained(config, lora, "vision_tower") + _trained(config, lora, "multi_modal_projector"))
        )
        heads = text.num_attention_heads * text.head_dim
        return cls(
            image_tokens=frames * patches,
            per_example=frames * (passes * seen + added),
            per_token=4 * _weights(config, "language_model") + 6 * _trained(config, lora, "language_model"),
            per_pair=2 * 4 * heads * text.num_hidden_layers,
            per_target=4 * text.hidden_size * text.vocab_size,
        )

    def flops(self, examples: int, text_tokens: int, targets: int) -> float:
        """Return the operations of a step on so many examples, text tokens and suffix tokens in all."""
        tokens = examples * self.image_tokens + text_tokens
        pairs = tokens**2 / max(examples, 1)
        return (
            examples * self.per_example
            + tokens * self.per_token
            + pairs * self.per_pair
            + targets * self.per_target
        )


def _weights(config: PaliGemmaConfig, tower: str) -> int:
    """Numbers in the matrices of a tower's layers."""
    return sum(kind.layers * kind.inputs * kind.outputs for kind in _kinds(config, tower))


def _trained(config: PaliGemmaConfig, lora: Lora, tower: str) -> int:
    """Numbers in the factors of a tower."""
    kinds = lora.get(tower, {})
    return sum(
        math.prod(kinds[kind.kind][factor].shape)
        for kind in _kinds(config, tower)
        if kind.kind in kinds
        for factor in "ab"
    )


def _kinds(config: PaliGemmaConfig, tower: str) -> list[Adaptable]:
    return [kind for kind in adaptable(config) if kind.tower == tower]
