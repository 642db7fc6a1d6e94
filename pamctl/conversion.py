"""One adapter written anew: in another format, dtype or spelling, or at a smaller rank."""

from dataclasses import dataclass

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.compatibility import has_new_factors, refuse_experts
from pamctl.adapters.provenance import Provenance
from pamctl.merging.truncation import Truncation, truncated
from pamctl.refusal import UsageRefusal


@dataclass(frozen=True)
class Converted:
    """An adapter with the record of its conversion, computed module by module when it is written.

    Args:
        truncation: what cutting the rank keeps; None where nothing is cut.
    """

    adapter: Adapter
    truncation: Truncation | None


def convert(adapter: Adapter, rank: int | None = None) -> Converted:
    """Make an adapter ready to be written by `write_adapter` in any format.

    Args:
        rank: truncate each module's delta to this rank; modules of that rank or less stay as they are.

    Raises:
        UsageRefusal: a rank below 1.
    """
    if rank is not None and rank < 1:
        raise UsageRefusal(f"rank is {rank}", "give a rank of at least 1")
    refuse_experts([adapter])
    modules, truncation = adapter.modules, None
    if rank is not None and rank < adapter.rank:
        truncation = truncated(adapter.modules, rank)
        modules = truncation.modules
    record = _provenance(adapter, rank if truncation else None)
    converted = Adapter(
        modules, record, adapter.base_model, adapter.name, adapter.extras, adapter.origin, adapter.denoiser
    )
    return Converted(converted, truncation)


def _provenance(adapter: Adapter, rank: int | None) -> Provenance:
    """Written anew the factors still continue what they grew from; truncated they are new ones."""
    before = adapter.provenance
    started_from = before.parents if before and rank is None else ()
    parameters = {} if rank is None else {"rank": rank, "space": "delta"}
    if before and rank is None and has_new_factors(before.parameters):
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
