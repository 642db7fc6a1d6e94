"""One adapter written anew: in another format, dtype or spelling, or at a smaller rank."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pamctl.adapters.adapter import Adapter, ComputedModules, LoraFactors
from pamctl.adapters.provenance import Provenance
from pamctl.merging.low_rank import compress
from pamctl.refusal import UsageRefusal


@dataclass(frozen=True)
class Converted:
    """An adapter with the record of its conversion, computed module by module when it is written.

    Args:
        energies: for each module computed so far the squared norm of its delta after and before truncation.
    """

    adapter: Adapter
    energies: Mapping[str, tuple[float, float]]

    @property
    def retained_energy(self) -> float:
        """The share of the delta's squared norm that is kept; 1 where nothing was cut."""
        before = sum(whole for _, whole in self.energies.values())
        return sum(kept for kept, _ in self.energies.values()) / before if before else 1.0


def convert(adapter: Adapter, rank: int | None = None) -> Converted:
    """Make an adapter ready to be written by `write_adapter` in any format.

    Args:
        rank: truncate each module's delta to this rank, which is the best approximation at it (Eckart-Young);
            modules of that rank or less stay as they are.

    Raises:
        UsageRefusal: a rank below 1.
    """
    if rank is not None and rank < 1:
        raise UsageRefusal(f"rank is {rank}", "give a rank of at least 1")
    cut = rank is not None and rank < adapter.rank
    energies: dict[str, tuple[float, float]] = {}
    modules: Mapping[str, LoraFactors] = adapter.modules
    if cut and rank is not None:
        shapes = {
            module: replace(shape, rank=min(rank, shape.rank)) for module, shape in adapter.shapes.items()
        }

        def truncated(module: str) -> LoraFactors:
            factors, kept, whole = _truncated(adapter.modules[module], shapes[module].rank)
            energies[module] = kept, whole
            return factors

        modules = ComputedModules(shapes, truncated)
    record = _provenance(adapter, rank if cut else None)
    converted = Adapter(modules, record, adapter.base_model, adapter.name, adapter.extras, adapter.origin)
    return Converted(converted, energies)


def _truncated(factors: LoraFactors, rank: int) -> tuple[LoraFactors, float, float]:
    """Factors of exactly this rank, and the delta's squared norm kept and before."""
    shorter, kept, whole = compress(factors, rank)
    if factors.rank <= rank:
        return factors, whole, whole
    missing = rank - shorter.rank
    a, b = np.pad(shorter.a, ((0, missing), (0, 0))), np.pad(shorter.b, ((0, 0), (0, missing)))
    return replace(shorter, a=a, b=b), kept, whole


def _provenance(adapter: Adapter, rank: int | None) -> Provenance:
    """Written anew the factors still continue what they grew from; truncated they are new ones."""
    before = adapter.provenance
    started_from = before.parents if before and rank is None else ()
    parameters = {} if rank is None else {"rank": rank, "space": "delta"}
    if before and rank is None and before.parameters.get("space") == "delta":
        started_from, parameters = (), {"space": "delta"}
    return Provenance(
        kind="converted",
        stage=before.stage if before else "trained",
        tasks=before.tasks if before else (),
        parents=(adapter.as_parent(), *started_from),
        base=adapter.base,
        method="convert",
        parameters=parameters,
        conflicts=before.conflicts if before else None,
    )
