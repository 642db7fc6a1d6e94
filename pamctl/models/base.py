"""Which base model a reference stands for, and everything that is read with it."""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from pamctl.models.config import PaliGemmaConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.tokenizer import Tokenizer
from pamctl.models.trees import Tree
from pamctl.models.weights import read_weights
from pamctl.refusal import Refusal

EMBEDDED = "tiny-paligemma"
_HUB_NAME = re.compile(r"(?:hf://)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
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
    """

    name: str
    fingerprint: str
    config: PaliGemmaConfig
    parameters: Tree
    tokenizer: Tokenizer
    images: ImageProcessor
    lora_defaults: LoraDefaults


def load_base(reference: str | None = None, dtype: Any = jnp.float32) -> Base:
    """Load a base model.

    Args:
        reference: a folder in Hugging Face layout, `hf://org/name[@revision]`, a bare `org/name` where no
            such path exists, or None or "tiny" for the embedded tiny PaliGemma.
        dtype: of the parameters in memory, and so of the activations.

    Raises:
        Refusal: nothing is there, or it is not a whole PaliGemma 1 checkpoint.
    """
    name, folder = _locate(reference)
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


def _locate(reference: str | None) -> tuple[str, Path]:
    if reference is None or reference in ("tiny", EMBEDDED):
        return EMBEDDED, Path(str(files("pamctl") / "assets" / EMBEDDED))
    folder = Path(reference)
    if folder.is_dir():
        return folder.resolve().name, folder
    if folder.exists():
        raise Refusal(f"{reference} is a file, not a base model's folder", "name the folder it lies in")
    hub = _HUB_NAME.fullmatch(reference)
    if hub is None:
        raise Refusal(
            f"there is no base model at {reference}",
            "name a folder in Hugging Face layout, hf://org/name, or tiny for the embedded one",
        )
    return hub["repository"], _download(hub["repository"], hub["revision"])


def _download(repository: str, revision: str | None) -> Path:
    # Imported late: it reads HF_HOME, HF_TOKEN and HF_HUB_OFFLINE when imported.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_HUB_FILES)))
    except GatedRepoError as fault:
        raise Refusal(
            f"{repository} is gated on the Hub",
            f"accept its licence at https://huggingface.co/{repository}, then run `hf auth login`",
        ) from fault
    except LocalEntryNotFoundError as fault:
        raise Refusal(
            f"{repository} is not in the Hub cache and the Hub cannot be reached",
            "connect to the network and unset HF_HUB_OFFLINE, or name a local folder",
        ) from fault
    except (HfHubHTTPError, HFValidationError, OSError) as fault:
        raise Refusal(
            f"{repository} cannot be fetched from the Hub: {fault}", "check the name, or name a local folder"
        ) from fault
