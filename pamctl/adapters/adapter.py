"""What an adapter is: adapted modules by id, what passes through, where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import ComputedModules, Float32, LoraFactors, ModuleShape, computed, widest
from pamctl.adapters.fingerprint import combined_digest, module_digest
from pamctl.adapters.provenance import BaseModel, Parent, Provenance, public_name
from pamctl.adapters.routers import misfit, router_digest
from pamctl.refusal import Refusal


@dataclass(frozen=True)
class Origin:
    """Where an opened adapter was found and how it was written there.

    Args:
        format: `peft`, `kohya`, `diffusers`, `mlx`, `orbax` or `experts`.
        path: the file that holds its tensors, or the folder of an orbax checkpoint.
        repository: the Hub repository it was fetched from, with its commit.
        place: the path of its folder or file in that repository, None for the root.
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
    place: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that holds its files, and what else was written with them."""
        return self.path if self.path.is_dir() else self.path.parent


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
        routers: canonical module id -> (experts, inputs), of every module where they are mixtures of experts,
            as `pamctl.adapters.routers` describes them; none for plain LoRA.
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
        routers: Mapping[str, Float32] | None = None,
    ) -> None:
        if not isinstance(modules, ComputedModules):
            modules = ComputedModules(_shapes(modules), modules.__getitem__)
        self.shapes: dict[str, ModuleShape] = {name: modules.shapes[name] for name in sorted(modules.shapes)}
        self.modules = modules.ordered(self.shapes)
        self.provenance = provenance
        recorded = provenance.base.name if provenance and provenance.base else None
        self.base_model = base_model or recorded
        self.name = name
        self.extras: dict[str, Extra] = dict(sorted((extras or {}).items()))
        self.origin = origin
        self.denoiser = denoiser
        self.routers: dict[str, Float32] = dict(sorted((routers or {}).items()))
        if self.routers and (fault := misfit(self.shapes, _lengths(self.routers))):
            raise ValueError(fault)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before trusting it, as its reader noted."""
        return self.origin.notes if self.origin else ()

    @cached_property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((shape.rank for shape in self.shapes.values()), default=0)

    @property
    def parameters(self) -> int:
        """How many numbers the factors and routers hold."""
        factors = sum(shape.parameters for shape in self.shapes.values())
        return factors + sum(router.size for router in self.routers.values())

    @property
    def experts(self) -> int:
        """How many share the rank of each module; 0 for plain LoRA."""
        return max(map(len, self.routers.values()), default=0)

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
            return Parent(self.claimed_fingerprint)
        origin = self.origin
        return Parent(self.claimed_fingerprint, origin.repository, origin.commit, origin.place)

    @property
    def claimed_fingerprint(self) -> str:
        """The fingerprint that its record holds, else the computed one: not yet checked against the weights.

        Whoever reads every module checks it with `fingerprint_of`.
        """
        recorded = self.provenance.fingerprint if self.provenance else None
        return self.fingerprint if recorded is None or self.is_checked else recorded

    @property
    def is_unknown(self) -> bool:
        """Whether its fingerprint can only be had by reading every module."""
        return not self.is_checked and (self.provenance is None or self.provenance.fingerprint is None)

    @property
    def is_checked(self) -> bool:
        """Whether `fingerprint` has been computed from the weights, and is what the record says."""
        return "fingerprint" in self.__dict__

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the adapter does: ids, shapes, float32 factors, the scale in b, routers, extras.

        The dtype, order, spelling, format and zero padding of the rank on disk do not enter it, so an adapter
        keeps its fingerprint when pamctl writes it as float32. The first call reads every module.

        Raises:
            Refusal: `pamctl.json` records another fingerprint.
        """
        return self.fingerprint_of({module: module_digest(self.modules[module]) for module in self.shapes})

    @property
    def router_digests(self) -> dict[str, bytes]:
        """What the routers add to the fingerprint."""
        return {module: router_digest(router, self.rank) for module, router in self.routers.items()}

    def fingerprint_of(self, digests: Mapping[str, bytes]) -> str:
        """The fingerprint for one who has the digest of every module at hand; errors are those above."""
        found = combined_digest(digests, self.extras, self.router_digests)
        recorded = self.provenance.fingerprint if self.provenance else None
        if recorded not in (None, found):
            raise Refusal(
                f"{self.name}: its weights are not those that its record describes "
                f"(fingerprint {found[:12]}, recorded {recorded[:12] if recorded else ''})",
                "fetch or write it again; if the weights were changed on purpose, remove pamctl.json",
            )
        self.__dict__["fingerprint"] = found
        return found


def _lengths(routers: Mapping[str, Float32]) -> dict[str, tuple[int, ...]]:
    return {module: router.shape for module, router in routers.items()}


def _shapes(modules: Mapping[str, LoraFactors]) -> dict[str, ModuleShape]:
    return {module: factors.shape for module, factors in modules.items()}
