"""Random PaliGemmas of odd shapes, in both libraries, with the same inputs as each of them takes them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from pamctl.adapters import Adapter, save_adapter
from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.lora import init_lora, lora_to_adapter
from pamctl.models.paligemma import Lora, forward_logits, image_features, initial_parameters
from pamctl.models.text import TextBatch, text_batch
from pamctl.models.trees import Tree
from pamctl.models.weights import read_weights, write_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

EMBEDDED = Path(str(files("pamctl"))) / "assets" / "tiny-paligemma"
PREFIXES, SUFFIXES = (9, 2, 5, 7, 3, 8), (4, 1, 3, 2, 4, 4)
"""Lengths of prefix and suffix, over and over; <bos> and <eos> counted."""


LOGITS = 2e-5
"""How far logits may lie apart, where they are about 1."""


@dataclass(frozen=True)
class Case:
    """A model, and how many images an example has."""

    vision: VisionConfig
    text: TextConfig
    images: int = 1

    @property
    def config(self) -> PaliGemmaConfig:
        return PaliGemmaConfig(self.vision, self.text, image_token_index=self.text.vocab_size - 1)


def _second(*sizes: int, caps: tuple[float | None, float | None], scalar: float, window: int) -> TextConfig:
    return replace(
        TextConfig(*sizes),
        generation=2,
        query_pre_attn_scalar=scalar,
        attn_logit_softcapping=caps[0],
        final_logit_softcapping=caps[1],
        sliding_window=window,
    )


GEMMA = {
    "one key head": Case(VisionConfig(16, 28, 1, 2, 16, 8), TextConfig(24, 40, 1, 4, 1, 70, 8)),
    "two key heads": Case(VisionConfig(24, 20, 2, 3, 12, 4), TextConfig(16, 30, 3, 4, 2, 71, 6), 2),
    "a key head each": Case(
        VisionConfig(12, 20, 3, 1, 12, 6, 1e-5), TextConfig(20, 44, 2, 4, 4, 69, 10, 1e-5, 5e5), 3
    ),
    "wide heads": Case(VisionConfig(20, 32, 2, 5, 20, 10), TextConfig(16, 24, 2, 6, 3, 72, 32)),
    "narrow heads": Case(VisionConfig(18, 25, 2, 3, 10, 5), TextConfig(40, 22, 2, 3, 3, 67, 4), 4),
    "a sole head": Case(VisionConfig(32, 17, 2, 8, 16, 4), TextConfig(18, 38, 3, 1, 1, 73, 14)),
}
GEMMA_2 = {
    "both caps": Case(
        VisionConfig(16, 28, 2, 2, 14, 7),
        _second(24, 40, 3, 4, 2, 70, 10, caps=(1.5, 1.0), scalar=5, window=4096),
    ),
    "no caps": Case(
        VisionConfig(24, 36, 2, 4, 12, 4),
        _second(20, 26, 2, 2, 1, 71, 16, caps=(None, None), scalar=16, window=4096),
        2,
    ),
    "scores capped": Case(
        VisionConfig(20, 18, 1, 5, 8, 4),
        _second(36, 32, 2, 3, 3, 68, 8, caps=(0.8, None), scalar=24, window=4096),
        3,
    ),
    "logits capped": Case(
        VisionConfig(30, 22, 3, 3, 10, 5),
        _second(16, 50, 3, 4, 4, 74, 6, caps=(None, 0.7), scalar=3, window=4096),
    ),
    "images beyond the window": Case(
        VisionConfig(14, 24, 2, 2, 16, 4),
        _second(28, 34, 3, 4, 1, 70, 12, caps=(2.0, 1.5), scalar=20, window=5),
    ),
    "the suffix beyond the window": Case(
        VisionConfig(18, 30, 2, 6, 8, 4),
        _second(22, 28, 4, 2, 2, 66, 18, caps=(1.0, 2.0), scalar=9, window=25),
        4,
    ),
    "a window of two": Case(
        VisionConfig(28, 16, 2, 7, 12, 6),
        _second(32, 20, 2, 8, 4, 75, 6, caps=(3.0, 1.2), scalar=4, window=2),
        2,
    ),
}
CASES = {**GEMMA, **GEMMA_2}


@contextmanager
def exact_products_on_one_core() -> Iterator[None]:
    """Accelerators round float32 factors unless told not to; tiny products only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.default_matmul_precision("highest"):
        yield
    torch.set_num_threads(threads)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """jit by the configuration. What runs once is not worth optimising: that took five times as long."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return jax.jit(function, static_argnums=0, compiler_options=options)


@compiled
def logits_of(
    config: PaliGemmaConfig, params: Tree, lora: Lora, scale: float, pixels: jax.Array, batch: TextBatch
) -> jax.Array:
    features = image_features(config, params, lora, scale, pixels)
    return forward_logits(config, params, lora, scale, features, batch)


@dataclass(frozen=True)
class Model:
    """One checkpoint and random examples for it.

    Attributes:
        texts: (prefix ids, suffix ids) of each example.
        pixels: (examples, images, side, side, 3), from pamctl's processor.
        pixel_values: (examples, images, 3, side, side), of the same pictures, from transformers'.
    """

    folder: Path
    config: PaliGemmaConfig
    params: Tree
    texts: list[tuple[list[int], list[int]]]
    pixels: np.ndarray
    pixel_values: np.ndarray

    def batch(self, rows: int, *, suffixes: bool = True) -> TextBatch:
        """Texts as pamctl takes them: always padded to the longest that there are."""
        texts = [(prefix, suffix if suffixes else []) for prefix, suffix in self.texts[:rows]]
        return text_batch(texts, max(PREFIXES) + max(SUFFIXES), max(SUFFIXES))

    def given(self, rows: Sequence[int], side: str, *, suffixes: bool = True) -> dict[str, Any]:
        """What transformers is called with; without token types its mask would be causal."""
        images = [self.config.image_token_index] * self.pixels.shape[1] * self.config.vision.image_tokens
        texts = [
            ([*images, *prefix], suffix if suffixes else [])
            for prefix, suffix in map(self.texts.__getitem__, rows)
        ]
        columns = {
            "input_ids": [prefix + suffix for prefix, suffix in texts],
            "attention_mask": [[1] * len(prefix + suffix) for prefix, suffix in texts],
            "token_type_ids": [[0] * len(prefix) + [1] * len(suffix) for prefix, suffix in texts],
        }
        if suffixes:
            columns["labels"] = [[-100] * len(prefix) + suffix for prefix, suffix in texts]
        pixel_values = self.pixel_values[list(rows)]
        return {
            **{
                name: _padded(lists, side, -100 if name == "labels" else 0) for name, lists in columns.items()
            },
            "pixel_values": torch.tensor(pixel_values.reshape(-1, *pixel_values.shape[2:])),
        }

    def real(self, values: np.ndarray, batch: TextBatch) -> np.ndarray:
        """What stands at the tokens of a batch, (all tokens, ...), of values (b, n + t, ...)."""
        images = values.shape[1] - batch.tokens.shape[1]
        return np.concatenate(
            [row[: images + length] for row, length in zip(values, batch.length, strict=True)]
        )


def random_model(case: Case, folder: Path, examples: int) -> Model:
    """A checkpoint written by pamctl; norms and biases random too, for neutral ones would hide a slip."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: initial_parameters(case.config, 0))
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _drawn(rng, [key.key for key in path], leaf.shape), shapes
    )
    write_weights(folder, params, case.config)
    return Model(folder, case.config, params, *_examples(case.config, case.images, examples))


def embedded_model(examples: int) -> Model:
    config = PaliGemmaConfig.from_file(EMBEDDED)
    params, _ = read_weights(EMBEDDED, config)
    return Model(EMBEDDED, config, params, *_examples(config, 1, examples))


def _drawn(rng: np.random.Generator, path: list[str], shape: tuple[int, ...]) -> np.ndarray:
    draws = rng.normal(size=shape).astype(np.float32)
    if path[-1] == "bias":
        return 0.2 * draws
    if any("norm" in part for part in path):
        return 0.2 * draws + np.float32(path[0] == "vision_tower")
    draws *= np.float32(shape[-1] ** -0.5)
    if "embed_tokens" in path:
        draws *= np.float32(0.5)
    return draws


def _examples(config: PaliGemmaConfig, images: int, examples: int) -> tuple[Any, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    words = np.setdiff1d(np.arange(3, config.text.vocab_size), [config.image_token_index])
    texts = [
        (
            [config.bos_token_id, *rng.choice(words, PREFIXES[row % 6] - 1).tolist()],
            [*rng.choice(words, SUFFIXES[row % 6] - 1).tolist(), config.eos_token_id],
        )
        for row in range(examples)
    ]
    side = config.vision.image_size
    theirs = transformers.SiglipImageProcessorPil(size={"height": side, "width": side})
    pictures = [
        Image.fromarray(rng.integers(0, 256, (*rng.integers(3, 60, 2), 3), np.uint8))
        for _ in range(examples * images)
    ]
    pixels = np.stack([ImageProcessor(size=side).pixels(picture) for picture in pictures])
    pixel_values = theirs(pictures, return_tensors="np")["pixel_values"]
    grouped = (examples, images)
    return (
        texts,
        pixels.reshape(*grouped, *pixels.shape[1:]),
        pixel_values.reshape(*grouped, *pixel_values.shape[1:]),
    )


def _padded(lists: list[list[int]], side: str, filler: int) -> Any:
    width = max(map(len, lists))
    fill = [[filler] * (width - len(ids)) for ids in lists]
    rows = [pad + ids if side == "left" else ids + pad for pad, ids in zip(fill, lists, strict=True)]
    return torch.tensor(rows)


def in_transformers(model: Model) -> Any:
    """The checkpoint as transformers loads it, which must be whole."""
    loaded, report = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        model.folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return loaded.eval()


def in_peft(model: Model, adapter: Path, *, trainable: bool = False) -> Any:
    """transformers' model with an adapter folder, every factor of which must find its place."""
    adapted = peft.PeftModel.from_pretrained(in_transformers(model), adapter, is_trainable=trainable)
    report = adapted.load_adapter(adapter, "again")
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "lora" in key]
    adapted.delete_adapter("again")
    return adapted


def random_lora(config: PaliGemmaConfig, targets: str) -> Lora:
    rng = np.random.default_rng(2)
    fresh = init_lora(config, 3, targets, seed=0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), fresh)


def save_lora(lora: Lora, scale: float, config: PaliGemmaConfig, folder: Path) -> Path:
    folder.mkdir()
    save_adapter(Adapter(lora_to_adapter(lora, scale, config), base_model="somewhere/base"), folder)
    return folder
