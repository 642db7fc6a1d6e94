"""One checkpoint in both libraries, ours and transformers with peft, with the same examples for both."""

import statistics
import sys
import time
from collections.abc import Callable
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
TURN = 10
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
"""torch's, by the names of `--dtype`."""

TARGETS = {
    "decoder": (r"language_model\..*", r".*language_model\..*(q|k|v|o|gate|up|down)_proj"),
    "both": (
        r"(language_model|vision_tower).*",
        r".*(language_model|vision_tower)\..*(q_proj|k_proj|v_proj|o_proj|out_proj|gate_proj|up_proj|down_proj|fc1|fc2)",
    ),
}
"""What is adapted, as ours and as peft's pattern."""


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
    def random(
        cls, config: PaliGemmaConfig, batch: int, text_length: int, suffix: int = SUFFIX
    ) -> "Examples":
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


def first_call(work: Callable[[], object]) -> float:
    """The seconds that a first call takes beyond a second: compilation, mostly."""
    return timed(work) - timed(work)


def taking_turns(
    one: Callable[[], object], other: Callable[[], object], times: int
) -> tuple[list[float], list[float]]:
    """The seconds of each call of both, in turns of some calls, so that what else the machine does hits both.

    After a call of the other side threads still spin and caches are cold, so the first of a turn is left out.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(-(-times // TURN)):
        for work, kept in zip((one, other), seconds, strict=True):
            work()
            kept.extend(timed(work) for _ in range(TURN))
    return seconds


def timed(work: Callable[[], object]) -> float:
    """The seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def told(cached: bool, mine: list[float], peer: list[float], compiling: float, warming: float) -> str:
    """One row: medians, least times, their ratios, and what the first calls took."""
    (middle, middle_peer), (least, least_peer) = (map(of, (mine, peer)) for of in (statistics.median, min))
    return (
        f"{'features given' if cached else 'from pixels':>15}  "
        f"{1e3 * middle:8.1f} ms  {1e3 * middle_peer:8.1f} ms  {middle_peer / middle:5.2f}x  "
        f"(least {1e3 * least:.1f}, {1e3 * least_peer:.1f}: {least_peer / least:.2f}x)  "
        f"first call {compiling:.1f} s, {warming:.1f} s"
    )
