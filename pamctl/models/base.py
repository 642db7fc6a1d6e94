"""Which base model a reference stands for, and everything that is read with it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from pamctl.hub import fetch, hub_reference
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.tokenizer import Tokenizer
from pamctl.models.trees import Tree
from pamctl.models.weights import read_weights
from pamctl.refusal import Refusal

EMBEDDED = "tiny-paligemma"
_HUB_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
)


@dataclass(frozen=True)
class LoraDefaults:
    """What an adapter of this base is like when no flag says otherwise.

    Attributes:
        targets: matched in full against canonical module ids.
    """

    rank: int = 32
    alpha: float = 32.0
    targets: str = r"(language_model|vision_tower\.encoder)\.layers\.\d+\.(self_attn|mlp)\.\w+"


@dataclass(frozen=True)
class Base:
    """A frozen model with all that belongs to it.

    Attributes:
        name: as it may be recorded: a Hub name, the embedded base's, or a folder's last part.
        fingerprint: SHA-256 of the tensors as stored, the configuration and the tokenizer.
        notes: what the user should know of how it was found.
    """

    name: str
    fingerprint: str
    config: PaliGemmaConfig
    parameters: Tree
    tokenizer: Tokenizer
    images: ImageProcessor
    lora_defaults: LoraDefaults
    notes: tuple[str, ...] = ()


def load_base(reference: str | None = None, dtype: Any = jnp.float32) -> Base:
    """Load a base model.

    Args:
        reference: a folder in Hugging Face layout, `hf://org/name[@revision][/subfolder]`, a bare `org/name`
            where no such path exists, or None or "tiny" for the embedded tiny PaliGemma.
        dtype: of the parameters in memory, and so of the activations.

    Raises:
        Refusal: nothing is there, or it is not a whole PaliGemma 1 checkpoint.
    """
    name, folder, notes = _locate(reference)
    config = PaliGemmaConfig.from_file(folder)
    tokenizer = Tokenizer(folder / "tokenizer.json", config.text.vocab_size)
    images = ImageProcessor.from_file(folder)
    _check_agreement(folder, config, tokenizer, images)
    parameters, digest = read_weights(folder, config, dtype)
    return Base(
        name=name,
        fingerprint=_fingerprint(digest, config, folder / "tokenizer.json"),
        config=config,
        parameters=parameters,
        tokenizer=tokenizer,
        images=images,
        lora_defaults=_lora_defaults(folder / "lora.json"),
        notes=notes,
    )


def _check_agreement(
    folder: Path, config: PaliGemmaConfig, tokenizer: Tokenizer, images: ImageProcessor
) -> None:
    facts = (
        ("pad_token_id", config.pad_token_id, "tokenizer.json", tokenizer.pad),
        ("eos_token_id", config.eos_token_id, "tokenizer.json", tokenizer.eos),
        ("bos_token_id", config.bos_token_id, "tokenizer.json", tokenizer.bos),
        ("image_size", config.vision.image_size, "preprocessor_config.json", images.size),
    )
    for field, said, file, found in facts:
        if said != found:
            raise Refusal(
                f"{folder}: config.json has {field} {said}, {file} has {found}",
                f"use the {file} that belongs to the checkpoint",
            )


def _fingerprint(weights: str, config: PaliGemmaConfig, tokenizer: Path) -> str:
    digest = hashlib.sha256(f"{weights}\n{config.to_json()}".encode())
    digest.update(tokenizer.read_bytes())
    return digest.hexdigest()


def _lora_defaults(path: Path) -> LoraDefaults:
    if not path.is_file():
        return LoraDefaults()
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return LoraDefaults(int(fields["rank"]), float(fields["alpha"]), str(fields["targets"]))
    except (ValueError, KeyError, TypeError) as fault:
        raise Refusal(f"{path} is not rank, alpha and targets: {fault!r}", "mend it, or remove it") from fault


def _locate(reference: str | None) -> tuple[str, Path, tuple[str, ...]]:
    if reference is None or reference in ("tiny", EMBEDDED):
        return EMBEDDED, Path(str(files("pamctl") / "assets" / EMBEDDED)), ()
    folder = Path(reference)
    if folder.is_dir():
        return folder.resolve().name, folder, ()
    if folder.exists():
        raise Refusal(f"{reference} is a file, not a base model's folder", "name the folder it lies in")
    found = hub_reference(reference)
    if found is None or found.path.endswith((".json", ".safetensors")):
        raise Refusal(
            f"there is no base model at {reference}",
            "name a folder in Hugging Face layout, hf://org/name, or tiny for the embedded one",
        )
    snapshot = fetch(found, _read_with_it)
    return f"{found.repository}/{found.path}".rstrip("/"), snapshot.folder, snapshot.notes


def _read_with_it(names: Sequence[str]) -> list[str]:
    here = [name for name in names if "/" not in name]
    return [name for name in here if any(fnmatchcase(name, pattern) for pattern in _HUB_FILES)]
