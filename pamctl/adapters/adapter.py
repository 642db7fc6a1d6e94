"""What an adapter is: for each adapted module the two LoRA factors and their scale, read when asked for."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.provenance import BaseModel, Parent, Provenance, public_name
from pamctl.adapters.tensor_file import DTYPES
from pamctl.refusal import Refusal

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """What kind of layer a module is: it decides how a format lays out the factors, not what they compute.

    Args:
        kind: for `conv` the columns of `a` are (channels, *kernel) in row-major order; for `embedding` they
            are the vocabulary, and the delta of the table is the transpose of scale · b @ a.
        kernel: the lengths of a convolution's kernel, one to three of them.
    """

    kind: Literal["linear", "conv", "embedding"] = "linear"
    kernel: tuple[int, ...] = ()


LINEAR = Layer()
EMBEDDING = Layer("embedding")


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """One adapted module: delta = scale · b @ a.

    Args:
        a: (rank, inputs) float32, applied first.
        b: (outputs, rank) float32.
        scale: alpha / rank, or alpha / √rank under rsLoRA; 1 when it is already folded into `b`.
    """

    a: Float32
    b: Float32
    scale: float = 1.0
    layer: Layer = LINEAR

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ValueError(
                f"a {self.a.shape} and b {self.b.shape} are not (rank, inputs) and (outputs, rank)"
            )

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def shape(self) -> "ModuleShape":
        return ModuleShape(self.rank, self.a.shape[1], self.b.shape[0], "F32", self.layer, self.scale)

    def folded(self) -> "LoraFactors":
        """The same delta with the scale multiplied into `b`: what pamctl compares and writes.

        What goes beyond float32 is Inf, which whoever writes it refuses.
        """
        if self.scale == 1.0:
            return self
        with np.errstate(over="ignore"):
            return replace(self, b=self.b * np.float32(self.scale), scale=1.0)


@dataclass(frozen=True)
class ModuleShape:
    """What is known of a module without reading its numbers.

    Args:
        dtype: the one at rest, as F32 or BF16.
        scale: as its file gives it; it may be folded into the factors since.
    """

    rank: int
    inputs: int
    outputs: int
    dtype: str
    layer: Layer = LINEAR
    scale: float = field(default=1.0, compare=False)

    @property
    def parameters(self) -> int:
        return self.rank * (self.inputs + self.outputs)

    @property
    def bytes(self) -> int:
        return self.parameters * DTYPES[self.dtype].itemsize


class ComputedModules(Mapping[str, LoraFactors]):
    """Modules computed each time they are asked for and never kept: memory stays that of one module."""

    def __init__(self, shapes: Mapping[str, ModuleShape], compute: Callable[[str], LoraFactors]) -> None:
        self.shapes = shapes
        self._compute = compute

    def __getitem__(self, module: str) -> LoraFactors:
        if module not in self.shapes:
            raise KeyError(module)
        return self._compute(module)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


ExtraRole = Literal["module", "embedding", "bias", "lora_bias"]


@dataclass(frozen=True, eq=False)
class Extra:
    """A tensor of an adapter that is no delta. It passes through unchanged, in the dtype it has at rest.

    Args:
        role: `module`, the full weight of a module in place of the base's; `embedding`, the same of a resized
            embedding, for which the base has to be resized; `bias`, a bias of the base as trained;
            `lora_bias`, which is added to a module's output and has the scale folded in.
        read: gives the tensor, in its dtype.
    """

    role: ExtraRole
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Origin:
    """Where an opened adapter was found and how it was written there.

    Args:
        format: `peft`, `kohya`, `diffusers`, `mlx` or `orbax`.
        path: the file that holds its tensors, or the folder of an orbax checkpoint.
        repository: the Hub repository it was fetched from, with its commit.
        settings: what stood beside the weights, as `adapter_config.json` or the file's metadata holds it.
        notes: what the user should know before trusting it.
        flattened: whether ids of one name may be flattened paths, as kohya's are.
    """

    format: str
    path: Path
    repository: str | None = None
    commit: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    flattened: bool = False


class Adapter:
    """A LoRA checkpoint: adapted modules by canonical id, in sorted order, and where they come from.

    Args:
        modules: canonical module id -> factors; `ComputedModules` for what is read only when asked for.
        provenance: how pamctl made it; None for an adapter from elsewhere.
        base_model: the base it adapts, by name or path, as far as known.
        name: how messages call it: the reference it was opened by.
        extras: canonical tensor id, as `lm_head.weight` -> a tensor that is no delta.
        origin: where it was found; None for one that was computed.
        denoiser: which of `unet`, `transformer` and `diffusion_model` its diffusers file has the ids under
            that name no component; None where that is not known.
    """

    def __init__(
        self,
        modules: Mapping[str, LoraFactors],
        provenance: Provenance | None = None,
        base_model: str | None = None,
        name: str = "adapter",
        extras: Mapping[str, Extra] | None = None,
        origin: Origin | None = None,
        denoiser: str | None = None,
    ) -> None:
        given = modules.shapes if isinstance(modules, ComputedModules) else _shapes(modules)
        self.shapes: dict[str, ModuleShape] = {module: given[module] for module in sorted(given)}
        self.modules = ComputedModules(self.shapes, modules.__getitem__)
        self.provenance = provenance
        recorded = provenance.base.name if provenance and provenance.base else None
        self.base_model = base_model or recorded
        self.name = name
        self.extras: dict[str, Extra] = dict(sorted((extras or {}).items()))
        self.origin = origin
        self.denoiser = denoiser

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((shape.rank for shape in self.shapes.values()), default=0)

    @property
    def parameters(self) -> int:
        """How many numbers the factors hold."""
        return sum(shape.parameters for shape in self.shapes.values())

    @property
    def dtype(self) -> str:
        """The narrowest of F32, F16 and BF16 that holds every factor, its scale folded in."""
        shapes = self.shapes.values()
        return widest(shape.dtype if shape.scale == 1.0 else computed([shape.dtype]) for shape in shapes)

    @property
    def base(self) -> BaseModel | None:
        """The base model as it may be recorded, by public name."""
        if self.provenance and self.provenance.base:
            return self.provenance.base
        return BaseModel(public_name(self.base_model)) if self.base_model else None

    @property
    def base_fingerprint(self) -> str | None:
        return self.base.fingerprint if self.base else None

    def as_parent(self) -> Parent:
        """This adapter as the record of one made from it names it."""
        if self.origin is None:
            return Parent(self.fingerprint)
        return Parent(self.fingerprint, self.origin.repository, self.origin.commit)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the adapter does: ids, shapes, float32 factors with the scale in b, and extras.

        The dtype, order, spelling, format and zero padding of the rank on disk do not enter it, so an adapter
        keeps its fingerprint when pamctl writes it as float32. The first call reads every module.

        Raises:
            Refusal: `pamctl.json` records another fingerprint.
        """
        return self.fingerprint_of({module: module_digest(self.modules[module]) for module in self.shapes})

    def fingerprint_of(self, digests: Mapping[str, bytes]) -> str:
        """The fingerprint for one who has the digest of every module at hand; errors are those above."""
        found = combined_digest(digests, self.extras)
        recorded = self.provenance.fingerprint if self.provenance else None
        if recorded not in (None, found):
            raise Refusal(
                f"{self.name}: its weights are not those that its record describes "
                f"(fingerprint {found[:12]}, recorded {recorded[:12] if recorded else ''})",
                "fetch or write it again; if the weights were changed on purpose, remove pamctl.json",
            )
        self.__dict__["fingerprint"] = found
        return found


def widest(dtypes: Iterable[str]) -> str:
    """The narrowest dtype that pamctl writes and that holds numbers of all of these."""
    found = {"F16" if dtype.startswith("F8") else dtype for dtype in dtypes}
    return found.pop() if found in ({"F16"}, {"BF16"}) else "F32"


def computed(dtypes: Iterable[str]) -> str:
    """The narrowest dtype for what is computed from these: BF16 has the range of F32, F16 has not."""
    return "BF16" if set(dtypes) == {"BF16"} else "F32"


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


def _shapes(modules: Mapping[str, LoraFactors]) -> dict[str, ModuleShape]:
    return {module: factors.shape for module, factors in modules.items()}


def _without_padding(factors: LoraFactors) -> tuple[Float32, Float32]:
    """The factors less the last rank components that are zero in both."""
    used = np.flatnonzero(factors.a.any(axis=1) | factors.b.any(axis=0))
    rank = int(used[-1]) + 1 if used.size else 0
    return factors.a[:rank], factors.b[:, :rank]
