"""A base that trains in seconds and tasks to train it on."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from PIL import Image

from pamctl.adapters import open_adapter
from pamctl.models.base import Base
from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.paligemma import initial_parameters
from pamctl.models.weights import write_weights
from pamctl.tasks import open_task
from pamctl.training.configuration import Settings
from pamctl.training.inheritance import Inheritance
from pamctl.training.preparation import Prepared, prepare

CONFIG = PaliGemmaConfig(
    vision=VisionConfig(8, 12, 1, 2, image_size=8, patch_size=4),
    text=TextConfig(12, 16, 2, 2, 1, 16, head_dim=6),
    image_token_index=4,
)
TARGETS = r"language_model\.layers\.\d+\.self_attn\.(q|v)_proj"
SETTINGS: Settings = {"batch_size": 4, "learning_rate": 0.02, "steps": 8}
EXAMPLES = 10

# Compiled in haste: it runs once, and optimised it takes longer to compile than all that is tested with it.
_initial_parameters = jax.jit(
    initial_parameters, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)


def write_base(folder: Path, seed: int = 0) -> Path:
    """A random base of that size, in Hugging Face layout."""
    folder.mkdir(parents=True)
    write_weights(folder, _initial_parameters(CONFIG, seed), CONFIG)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n", *"abcdefgh"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(ImageProcessor(size=8).to_json())
    (folder / "lora.json").write_text(json.dumps({"rank": 3, "alpha": 3, "targets": TARGETS, "dtype": "f32"}))
    return folder


def write_task(folder: Path, name: str = "colours", seed: int = 0) -> Path:
    """A JSONL task whose answers are random letters."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    lines = []
    for number in range(EXAMPLES):
        image = f"{name}-{number}.png"
        Image.fromarray(draws.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(folder / image)
        *question, answer = draws.choice(list("abcdefgh"), 3)
        texts = {"question": " ".join(question), "answer": str(answer)}
        lines.append({"id": f"{name}-{number}", "image": image, **texts})
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def first_task(inputs: Path, base: Base, **settings: Any) -> Prepared:
    """shapes.jsonl as the first task of a sequence."""
    return prepare([open_task(inputs / "shapes.jsonl")], base, Inheritance(), settings)  # type: ignore[arg-type]


def second_task(inputs: Path, base: Base, **settings: Any) -> Prepared:
    """shapes.jsonl as the task after the adapter first/."""
    before = Inheritance(open_adapter(inputs / "first"))
    return prepare([open_task(inputs / "shapes.jsonl")], base, before, settings)  # type: ignore[arg-type]
