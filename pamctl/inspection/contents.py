"""What one adapter holds: format, base, modules by tower and kind, and the norm and rank of its deltas."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.factors import LoraFactors
from pamctl.adapters.fingerprint import module_digest
from pamctl.adapters.module_names import kind, tower
from pamctl.inspection.spectrum import Float64, effective_rank, energies, gram, rank_that_keeps

T = TypeVar("T")

_MOST_THREADS = 4  # each holds the factors of one module
_LAYER = re.compile(r".*[._]\d+(?=[._])")
_FLATTENED = re.compile(r".*_\d+_")  # what kohya's ids, one name for a whole path, have before the kind


@dataclass(frozen=True)
class Measured:
    """What one reading of a module gives."""

    scale: float
    digest: bytes
    spectrum: Float64
    a_norm: float
    b_norm: float


def describe(adapter: Adapter, *, norms: bool = True) -> dict[str, Any]:
    """The contents of one adapter, as `pamctl inspect --json` prints them.

    Each module, each group (the modules of one kind in one tower) and the whole carry

    - `norm`: of the delta, all of whose numbers count (Frobenius);
    - `effective_rank`: the exponential of the entropy of its singular energies, each as a share of their sum;
      of several modules the geometric mean of theirs, weighted by energy;
    - `rank_90`, `rank_99`: the smallest rank that keeps that percentage of the energy, which is the squared
      norm; of several modules the one rank to which all of them may be truncated.

    They are None, or 0 for the ranks, where a delta is 0.

    Args:
        norms: read the numbers. Without, these four and the factors' norms are left out of the record, and
            the fingerprint is that of the adapter's own record, unverified, or None.

    Raises:
        Refusal: a number is NaN or Inf, or the weights are not those that the adapter's record describes.
    """
    measured = over_modules(adapter.shapes, lambda name: measure(adapter.modules[name])) if norms else {}
    modules = [_module(adapter, name, measured.get(name)) for name in adapter.shapes]
    spectra = {name: each.spectrum for name, each in measured.items()}
    record, origin = adapter.provenance, adapter.origin
    recorded = record.fingerprint if record else None
    return {
        "name": adapter.name,
        "format": origin.format if origin else None,
        "repository": origin.repository if origin else None,
        "commit": origin.commit if origin else None,
        "fingerprint": adapter.fingerprint_of({name: each.digest for name, each in measured.items()})
        if norms
        else recorded,
        "fingerprint_verified": norms and recorded is not None,
        "base": {"name": adapter.base_model, "fingerprint": adapter.base_fingerprint},
        "provenance": record.to_json() if record else None,
        "parameters": adapter.parameters,
        "bytes": sum(module["bytes"] for module in modules),
        "ranks": sorted({module["rank"] for module in modules}),
        "scales": sorted({module["scale"] for module in modules}),
        "dtypes": sorted({module["dtype"] for module in modules}),
        "layers": _count_layers(adapter.shapes),
        **(_figures(spectra.values()) if norms else {}),
        "groups": _groups(modules, spectra),
        "extras": _extras(adapter),
        "notes": [*adapter.notes, *_notes(adapter, modules, norms)],
        "modules": modules,
    }


def measure(factors: LoraFactors) -> Measured:
    """The digest and the singular energies of one module."""
    gram_a, gram_b = gram(factors)
    b_norm = math.sqrt(gram_b.trace()) / abs(factors.scale) if factors.scale else 0.0
    return Measured(
        factors.scale,
        module_digest(factors),
        energies(gram_a, gram_b),
        math.sqrt(gram_a.trace()),
        b_norm,
    )


def over_modules(modules: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """Do something for each module, several at a time, each read only then."""
    names = list(modules)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def _module(adapter: Adapter, name: str, measured: Measured | None) -> dict[str, Any]:
    shape = adapter.shapes[name]
    record = {
        "module": name,
        "tower": tower(name),
        "kind": _FLATTENED.sub("", kind(name)),
        "layer": shape.layer.kind,
        "rank": shape.rank,
        "inputs": shape.inputs,
        "outputs": shape.outputs,
        "dtype": shape.dtype,
        "bytes": shape.bytes,
        "scale": measured.scale if measured else shape.scale,
    }
    if measured:
        record |= _figures([measured.spectrum])
        record |= {"a_norm": measured.a_norm, "b_norm": measured.b_norm}
    return record


def _figures(spectra: Iterable[Float64]) -> dict[str, Any]:
    spectra = list(spectra)
    return {
        "norm": math.sqrt(sum(float(spectrum.sum()) for spectrum in spectra)),
        "effective_rank": effective_rank(spectra),
        "rank_90": rank_that_keeps(0.90, spectra),
        "rank_99": rank_that_keeps(0.99, spectra),
    }


def _groups(modules: list[dict[str, Any]], spectra: Mapping[str, Float64]) -> list[dict[str, Any]]:
    """Modules of one kind in one tower, counted, with the figures of their deltas together."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for module in modules:
        grouped[module["tower"], module["kind"]].append(module)
    return [
        {
            "tower": in_tower,
            "kind": of_kind,
            "modules": len(members),
            "layers": _count_layers(member["module"] for member in members),
            "ranks": sorted({member["rank"] for member in members}),
            "scales": sorted({member["scale"] for member in members}),
            "dtypes": sorted({member["dtype"] for member in members}),
            "bytes": sum(member["bytes"] for member in members),
            **(_figures([spectra[member["module"]] for member in members]) if spectra else {}),
        }
        for (in_tower, of_kind), members in sorted(grouped.items())
    ]


def _count_layers(modules: Iterable[str]) -> int:
    """How many blocks of a model, told by the last number in a path, are adapted; 0 for modules outside."""
    return len({found[0] for module in modules if (found := _LAYER.match(module))})


def _extras(adapter: Adapter) -> list[dict[str, Any]]:
    """What is no delta, by role."""
    roles: dict[str, list[str]] = defaultdict(list)
    for name, extra in adapter.extras.items():
        roles[extra.role].append(name)
    return [
        {
            "role": role,
            "tensors": len(names),
            "bytes": sum(adapter.extras[name].bytes for name in names),
            "names": names,
        }
        for role, names in sorted(roles.items())
    ]


def _notes(adapter: Adapter, modules: list[dict[str, Any]], norms: bool) -> list[str]:
    notes = []
    if adapter.base_model is None:
        notes.append("it does not say which base model it belongs to")
    if norms and (still := [module["module"] for module in modules if not module["norm"]]):
        notes.append(f"the delta of {len(still)} modules is 0, such as {still[0]}")
    if len({module["dtype"] for module in modules}) > 1:
        notes.append("its factors are of several dtypes")
    if adapter.extras:
        notes.append(f"{len(adapter.extras)} tensors are no deltas and pass through unchanged")
    return notes
