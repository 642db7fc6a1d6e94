"""A merge done again from the record of its result: the same inputs and recipe give the same bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pamctl.adapters import open_adapter
from pamctl.adapters.adapter import Adapter
from pamctl.adapters.provenance import Parent, read_provenance
from pamctl.adapters.sources import RECORD_NAME
from pamctl.adapters.tensor_file import shown
from pamctl.merging.devices import Device
from pamctl.merging.recipe import RecipeFile, recipe_of
from pamctl.refusal import Refusal, UsageRefusal


@dataclass(frozen=True)
class Lock:
    """What the record of a merged adapter asks for.

    Args:
        file: the record.
        recipe: the merge, and how its output was written.
        parents: the inputs, in order.
        fingerprint: of the result, where it was recorded.
        device: on which dense deltas were worked on.
    """

    file: Path
    recipe: RecipeFile
    parents: tuple[Parent, ...]
    fingerprint: str | None
    device: Device


def read_lock(path: Path) -> Lock:
    """The merge that a `pamctl.json`, or the folder it lies in, is the record of.

    Raises:
        UsageRefusal: there is no record, or one of something else than a merge.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != RECORD_NAME:
        raise UsageRefusal(f"{path} is no {RECORD_NAME}", f"give the {RECORD_NAME} of a merged adapter")
    file, way_on = folder / RECORD_NAME, f"give the {RECORD_NAME} of a merged adapter"
    record = read_provenance(folder)
    if record is None:
        raise UsageRefusal(f"there is no {file}", way_on)
    if record.kind != "merged" or record.method is None:
        raise UsageRefusal(f"{file} is the record of an adapter that was {record.kind}", way_on)
    table = {**record.parameters, "method": record.method, "seed": record.seed or 0}
    device = table.pop("device", "cpu")
    if device not in get_args(Device):
        raise UsageRefusal(f"{file}: device is {shown(device)}", "see the record")
    recipe = recipe_of(table, str(file))
    return Lock(file, recipe, record.parents, record.fingerprint, device)


def locked_inputs(lock: Lock, given: Sequence[Adapter], *, allow_pickle: bool = False) -> list[Adapter]:
    """The adapters that a lock names, in its order.

    Each is looked for by its fingerprint among those given, then fetched from the Hub at its commit, then
    looked for beside the folder that the lock lies in.

    Raises:
        Refusal: one is in none of these places, or an adapter is given that the lock does not name.
    """
    known = {adapter.claimed_fingerprint: adapter for adapter in given}
    for adapter in given:
        if adapter.claimed_fingerprint not in {parent.fingerprint for parent in lock.parents}:
            raise Refusal(
                f"{adapter.name} is none of the adapters that {lock.file} names "
                f"(its fingerprint is {adapter.claimed_fingerprint[:12]})",
                "give the adapters that were merged, or none to have them found",
            )
    return [_found(parent, known, lock, allow_pickle) for parent in lock.parents]


def _found(parent: Parent, known: dict[str, Adapter], lock: Lock, allow_pickle: bool) -> Adapter:
    if parent.fingerprint in known:
        return known[parent.fingerprint]
    unreachable: Refusal | None = None
    if parent.name is not None and parent.commit is not None:
        place = f"/{parent.path}" if parent.path else ""
        try:
            adapter = open_adapter(f"hf://{parent.name}@{parent.commit}{place}", allow_pickle=allow_pickle)
        except Refusal as refusal:
            unreachable = refusal
        else:
            if adapter.claimed_fingerprint == parent.fingerprint:
                return known.setdefault(parent.fingerprint, adapter)
    for beside in _adapters_beside(lock.file.absolute().parent, allow_pickle):
        known.setdefault(beside.claimed_fingerprint, beside)
        if beside.claimed_fingerprint == parent.fingerprint:
            return beside
    raise unreachable or Refusal(
        f"{lock.file} names an adapter with the fingerprint {parent.fingerprint[:12]}, which is neither "
        f"given nor beside {lock.file.parent}",
        "name the merged adapters too: pamctl merge --from-lock LOCK ADAPTER ADAPTER... -o OUT",
    )


def _adapters_beside(folder: Path, allow_pickle: bool) -> Iterator[Adapter]:
    """Those with a record, which tells their fingerprint, before those that have to be read for it."""
    found = []
    for other in sorted(folder.parent.iterdir()):
        if other != folder and not other.name.startswith("."):
            try:
                found.append(open_adapter(other, allow_pickle=allow_pickle))
            except (Refusal, OSError):
                continue
    yield from sorted(found, key=lambda adapter: adapter.is_unknown)
