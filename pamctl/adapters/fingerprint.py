"""The fingerprint of an adapter: what it does, whatever the format, order and padding it is stored with."""

import hashlib
from collections.abc import Mapping

import numpy as np

from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import Float32, LoraFactors


def module_digest(factors: LoraFactors) -> bytes:
    """SHA-256 of one module's factors as float32, the scale folded in, less padding."""
    a, b = _without_padding(factors.folded())
    digest = hashlib.sha256(
        f"{a.shape[0]} {a.shape[1]} {b.shape[0]} {factors.layer.kind} {factors.layer.kernel}\n".encode()
    )
    digest.update(np.ascontiguousarray(a, dtype="<f4").data)
    digest.update(np.ascontiguousarray(b, dtype="<f4").data)
    return digest.digest()


def combined_digest(modules: Mapping[str, bytes], extras: Mapping[str, Extra]) -> str:
    """The fingerprint of an adapter whose modules have these digests.

    Ids enter it flattened, as kohya spells them, so that it is the same for a file that knows no others.
    """
    whole = hashlib.sha256()
    for module, digest in sorted((module.replace(".", "_"), digest) for module, digest in modules.items()):
        whole.update(f"{module}\0".encode())
        whole.update(digest)
    for name, extra in sorted(extras.items()):
        values = np.ascontiguousarray(extra.read())
        if extra.role == "lora_bias" and not values.any():
            continue  # which peft wants of every module as soon as one has it
        whole.update(f"{name}\0{extra.role} {extra.dtype} {extra.shape}\n".encode())
        whole.update(hashlib.sha256(values.reshape(-1).view(np.uint8).data).digest())
    return whole.hexdigest()


def _without_padding(factors: LoraFactors) -> tuple[Float32, Float32]:
    """The factors less the last rank components that are zero in both."""
    used = np.flatnonzero(factors.a.any(axis=1) | factors.b.any(axis=0))
    rank = int(used[-1]) + 1 if used.size else 0
    return factors.a[:rank], factors.b[:, :rank]
