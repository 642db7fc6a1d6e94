"""Modules cut to a rank as they are asked for, and how much of them that keeps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pamctl.adapters.factors import ComputedModules, LoraFactors, computed
from pamctl.merging.cut import Cut, Kept
from pamctl.merging.low_rank import compress, padded, squared_norm


@dataclass(frozen=True)
class Truncation:
    """Modules at a rank, each the best approximation of its delta (Eckart-Young), computed when asked for.

    Args:
        modules: those of a rank at most the given one are as they were.
        energies: of each module computed so far.
    """

    modules: ComputedModules
    energies: Mapping[str, Kept]

    @property
    def retained_energy(self) -> float:
        """The share of the squared norm that is kept in the modules computed so far; 1 where all is."""
        return retained(self.energies)


def retained(energies: Mapping[str, Kept]) -> float:
    """The share of the squared norm that is kept, all modules together; 1 where there is none."""
    before = math.fsum(module.whole for module in energies.values())
    return math.fsum(module.kept for module in energies.values()) / before if before else 1.0


def truncated(modules: ComputedModules, rank: int) -> Truncation:
    """Cut modules to a rank of at least 1."""
    energies: dict[str, Kept] = {}
    shapes = {
        module: replace(shape, rank=rank, dtype=computed([shape.dtype]), scale=1.0)
        if shape.rank > rank
        else shape
        for module, shape in modules.shapes.items()
    }

    def cut(module: str) -> LoraFactors:
        factors, energies[module] = _cut(modules[module], rank)
        return factors

    return Truncation(ComputedModules(shapes, cut), energies)


def _cut(factors: LoraFactors, rank: int) -> tuple[LoraFactors, Kept]:
    """Factors of exactly this rank or their own smaller one."""
    if factors.rank <= rank:
        whole = squared_norm(factors)
        return factors, Kept(whole, whole)
    shorter, kept = compress(factors, Cut(rank))
    return padded(shorter, rank), kept
