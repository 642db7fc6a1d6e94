"""Modules cut to a rank as they are asked for, and how much of them that keeps."""

from dataclasses import dataclass, replace

import numpy as np

from pamctl.adapters.factors import ComputedModules, LoraFactors, computed
from pamctl.merging.low_rank import compress, squared_norm


@dataclass(frozen=True)
class Truncation:
    """Modules at a rank, each the best approximation of its delta (Eckart-Young), computed when asked for.

    Args:
        modules: those of a rank at most the given one are as they were.
        energies: for each module computed so far the squared norm of its delta kept and before.
    """

    modules: ComputedModules
    energies: dict[str, tuple[float, float]]

    @property
    def retained_energy(self) -> float:
        """The share of the squared norm that is kept in the modules computed so far; 1 where all is."""
        before = sum(whole for _, whole in self.energies.values())
        return sum(kept for kept, _ in self.energies.values()) / before if before else 1.0


def truncated(modules: ComputedModules, rank: int) -> Truncation:
    """Cut modules to a rank of at least 1."""
    energies: dict[str, tuple[float, float]] = {}
    shapes = {
        module: replace(shape, rank=rank, dtype=computed([shape.dtype]), scale=1.0)
        if shape.rank > rank
        else shape
        for module, shape in modules.shapes.items()
    }

    def cut(module: str) -> LoraFactors:
        factors, kept, whole = _cut(modules[module], rank)
        energies[module] = kept, whole
        return factors

    return Truncation(ComputedModules(shapes, cut), energies)


def _cut(factors: LoraFactors, rank: int) -> tuple[LoraFactors, float, float]:
    """Factors of exactly this rank or their own smaller one, and the delta's squared norm kept and before."""
    if factors.rank <= rank:
        whole = squared_norm(factors)
        return factors, whole, whole
    shorter, kept, whole = compress(factors, rank)
    missing = rank - shorter.rank
    a, b = np.pad(shorter.a, ((0, missing), (0, 0))), np.pad(shorter.b, ((0, 0), (0, missing)))
    return replace(shorter, a=a, b=b), kept, whole
