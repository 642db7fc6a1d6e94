"""The fingerprint of an adapter: what it does, whatever the format, order and padding it is stored with."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import Float32, LoraFactors, ModuleShape, Part


def module_digest(factors: LoraFactors) -> bytes:
    """SHA-256 of one module's factors as float32, the scale folded in, less padding."""
    a, b = _without_padding(factors.folded())
    digest = BlockwiseDigest(replace(factors.shape, rank=a.shape[0]))
    digest.update("a", a)
    digest.update("b", b)
    return digest.digest()


class BlockwiseDigest:
    """`module_digest` of a module that comes block by block, first all rows of a, then those of b.

    Args:
        shape: of the module, whose rank must be the one less padding: `is_padded` tells that it was not.
    """

    def __init__(self, shape: ModuleShape) -> None:
        layer = shape.layer
        header = f"{shape.rank} {shape.inputs} {shape.outputs} {layer.kind} {layer.kernel}\n"
        self._digest = hashlib.sha256(header.encode())
        self._rank, self.is_padded = shape.rank, shape.rank > 0
        self._rows = 0  # of a

    def update(self, part: Part, values: Float32) -> None:
        """The next rows."""
        self._digest.update(np.ascontiguousarray(values, dtype="<f4").data)
        if part == "a":
            self._rows += len(values)
            last = values[-1:] if self._rows == self._rank else values[:0]
        else:
            last = values[:, self._rank - 1 :]
        if self.is_padded and last.any():
            self.is_padded = False

    def digest(self) -> bytes:
        return self._digest.digest()


def combined_digest(
    modules: Mapping[str, bytes], extras: Mapping[str, Extra], routers: Mapping[str, bytes] | None = None
) -> str:
    """The fingerprint of an adapter whose modules, and routers if it has any, have these digests.

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
    for module, digest in sorted((routers or {}).items()):
        whole.update(f"{module}\0router\n".encode())
        whole.update(digest)
    return whole.hexdigest()


def _without_padding(factors: LoraFactors) -> tuple[Float32, Float32]:
    """The factors less the last rank components that are zero in both."""
    rank = factors.rank
    while rank and not (factors.a[rank - 1].any() or factors.b[:, rank - 1].any()):
        rank -= 1
    return factors.a[:rank], factors.b[:, :rank]
