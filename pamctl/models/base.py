"""A base model ready for use: everything that is read of it, and what it says of itself."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pamctl.distributed import Devices
from pamctl.models.checkpoint import EMBEDDED as EMBEDDED
from pamctl.models.checkpoint import Checkpoint, open_checkpoint
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.images import ImageProcessor
from pamctl.models.leaves import model_leaves
from pamctl.models.quantization import quantized
from pamctl.models.reading import read_model, stored_digest
from pamctl.models.stored import KINDS
from pamctl.models.tokenizer import Tokenizer
from pamctl.models.trees import Tree
from pamctl.refusal import Refusal, UsageRefusal

DTYPES = {kind.lower(): dtype for kind, dtype in KINDS.items()}
"""What the parameters may be in memory, by the names of `--dtype`."""


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
        name: as it may be recorded: a Hub name, the embedded base's, a folder's last part or an .npz's stem.
        fingerprint: SHA-256 of the tensors as stored, the configuration and the tokenizer.
        dtype: of the parameters in memory, f32, f16 or bf16.
        quantize: what the matrices of the layers are held in instead, None for nothing else.
        devices: where the parameters lie, and batches go.
        notes: what the user should know of how it was found.
    """

    name: str
    fingerprint: str
    config: PaliGemmaConfig
    parameters: Tree
    tokenizer: Tokenizer
    images: ImageProcessor
    lora_defaults: LoraDefaults
    dtype: str
    quantize: str | None
    devices: Devices
    notes: tuple[str, ...] = ()


def load_base(
    reference: str | None = None,
    dtype: Any = None,
    *,
    quantize: str | None = None,
    fsdp: int | None = None,
    devices: Devices | None = None,
) -> Base:
    """Load a base model.

    Args:
        reference: a folder in Hugging Face layout, an .npz of big_vision or the folder of one,
            `hf://org/name[@revision][/subfolder]`, a bare `org/name` where no such path exists, or None or
            "tiny" for the embedded tiny PaliGemma.
        dtype: of the parameters in memory, and so of the activations: f32, f16 or bf16, or numpy's or jax's
            dtype; None for the base's own, which is bf16 unless its lora.json says otherwise.
        quantize: `nf4` holds the matrices of the layers in four bits, as they arrive.
        fsdp: over how many devices the parameters are sharded; None for as few as they fit on.
        devices: None for all there are, sharded so.

    Raises:
        Refusal: nothing is there, or it is not a whole PaliGemma checkpoint.
        UsageRefusal: another dtype or quantisation, or `fsdp` does not divide the devices.
    """
    checkpoint = open_checkpoint(reference)
    lora_defaults, own = _defaults(checkpoint.folder / "lora.json")
    name = _dtype_name(own if dtype is None else dtype)
    numbers = sum(math.prod(leaf.shape) for leaf in model_leaves(checkpoint.config))
    devices = devices or Devices.of(numbers * DTYPES[name].itemsize, fsdp)
    kept = partial(quantized, qtype=quantize) if quantize else lambda array: array
    parameters, digest = read_model(checkpoint.weights, DTYPES[name], devices.base_sharding, kept)
    return Base(
        name=checkpoint.name,
        fingerprint=_fingerprint(digest, checkpoint.config, checkpoint.folder / "tokenizer.json"),
        config=checkpoint.config,
        parameters=parameters,
        tokenizer=checkpoint.tokenizer,
        images=checkpoint.images,
        lora_defaults=lora_defaults,
        dtype=name,
        quantize=quantize,
        devices=devices,
        notes=checkpoint.notes,
    )


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """Return the fingerprint that `load_base` gives; every number is read unless the digest is known."""
    digest = stored_digest(checkpoint.weights)
    return _fingerprint(digest, checkpoint.config, checkpoint.folder / "tokenizer.json")


def _dtype_name(dtype: Any) -> str:
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    for name, known in DTYPES.items():
        if not isinstance(dtype, str) and known == np.dtype(dtype):
            return name
    raise UsageRefusal(f"a base cannot be held as {dtype}", f"choose one of {', '.join(DTYPES)}")


def _fingerprint(weights: str, config: PaliGemmaConfig, tokenizer: Path) -> str:
    digest = hashlib.sha256(f"{weights}\n{config.to_json()}".encode())
    digest.update(tokenizer.read_bytes())
    return digest.hexdigest()


def _defaults(path: Path) -> tuple[LoraDefaults, str]:
    """Return what `path` says of adapters, and the dtype in memory."""
    if not path.is_file():
        return LoraDefaults(), "bf16"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        dtype = fields.get("dtype", "bf16")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}")
        return LoraDefaults(int(fields["rank"]), float(fields["alpha"]), str(fields["targets"])), dtype
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise Refusal(f"{path} is not rank, alpha and targets: {fault!r}", "mend it, or remove it") from fault
