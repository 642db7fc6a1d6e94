"""One checkpoint in both libraries, ours and transformers with peft, with the same examples for both."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import peft
import torch
import transformers

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.text import TextBatch, text_batch

SUFFIX = 4


@dataclass(frozen=True)
class Examples:
    """Random examples of one length, so that neither side pads.

    Attributes:
        pixels: (b, 1, h, w, 3) float32.
        texts: (b, t) tokens, of which the last `SUFFIX` are the answer.
    """

    pixels: np.ndarray
    texts: TextBatch

    @classmethod
    def random(cls, config: PaliGemmaConfig, batch: int, text_length: int, suffix: int = SUFFIX) -> "Examples":
        rng = np.random.default_rng(0)
        side = config.vision.image_size
        ids = rng.integers(5, config.text.vocab_size, (batch, text_length))
        ids[ids == config.image_token_index] = 3
        ids[:, 0], ids[:, -1] = config.bos_token_id, config.eos_token_id
        rows = [(row[: text_length - suffix].tolist(), row[text_length - suffix :].tolist()) for row in ids]
        pixels = rng.uniform(-1, 1, (batch, 1, side, side, 3)).astype(np.float32)
        return cls(pixels, text_batch(rows, text_length, max(suffix, 1)))

    def for_transformers(self, config: PaliGemmaConfig, device: str, dtype: Any, *, labels: bool) -> dict:
        """The arguments of transformers' forward pass: padding nowhere, token types given."""
        tokens, prefix = np.asarray(self.texts.tokens), int(self.texts.prefix_length[0])
        images = np.full((len(tokens), config.vision.image_tokens), config.image_token_index)
        ids = torch.tensor(np.concatenate([images, tokens], axis=1), device=device)
        kinds = torch.zeros_like(ids)
        kinds[:, images.shape[1] + prefix :] = 1
        pixels = torch.tensor(self.pixels[:, 0].transpose(0, 3, 1, 2), device=device, dtype=dtype)
        given = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": kinds,
            "pixel_values": pixels,
        }
        return {**given, "labels": torch.where(kinds == 1, ids, -100)} if labels else given


def peer_of(folder: Path, rank: int, targets: str, device: str, dtype: Any, attention: str) -> Any:
    """The checkpoint in transformers with fresh LoRA by peft, everything else frozen."""
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    ).to(device)
    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    return peft.get_peft_model(model, settings).train()
