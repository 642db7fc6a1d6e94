"""The orbax format: a checkpoint with a tree of factors, and metadata that says which modules' they are.

    state/modules.<index>.a, .b   a (rank, in[, *kernel]) and b (out, rank[, 1...]), the scale folded into b
    state/extras.<index>          what passes through
    _CHECKPOINT_METADATA          orbax's; under `custom_metadata`: schema, base model, and of each array its
                                  module's id, kind of layer, dtype and shape

Ids stand in the metadata only, so that none can become a path. The arrays are plain zarr files of one chunk,
uncompressed, which orbax restores anywhere and which are read here without it, each when it is asked for.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pamctl.adapters.adapter import Adapter
from pamctl.adapters.extra import Extra, ExtraRole
from pamctl.adapters.formats.pairing import FactorPair, paired_modules
from pamctl.adapters.formats.stored import Contents, Stored, read_settings
from pamctl.adapters.formats.written import WriteOptions, WrittenFactors, factor_shapes
from pamctl.adapters.provenance import public_name
from pamctl.adapters.sources import ORBAX_NAME
from pamctl.adapters.tensor_file import (
    DTYPES,
    MOST_TENSORS,
    FileState,
    TensorEntry,
    TensorFile,
    is_shape,
    is_tensor_name,
    shown,
)
from pamctl.refusal import Refusal

SCHEMA = "pamctl.orbax/1"
ARRAYS = "state"  # what orbax calls the one tree of a checkpoint

_DAMAGED = "the checkpoint is damaged: fetch or write it again"
_NOT_OURS = "give an adapter that pamctl wrote; of a training run that is the folder given as -o"


@dataclass(frozen=True, eq=False)
class OrbaxArrays(TensorFile):
    """The arrays of a checkpoint by name, each in a file of its own in a folder of its own."""

    files: Mapping[str, TensorFile] = field(default_factory=dict)

    def _read(self, name: str, rows: slice) -> NDArray[Any]:
        """The numbers of one array, if its zarr header says what the checkpoint's metadata does."""
        entry, file = self.entries[name], self.files[name]
        folder = file.path.parent
        _state(folder / ".zarray", name)
        header, due = read_settings(folder / ".zarray"), _zarr_header(entry.dtype, entry.shape)
        for key, value in due.items():
            if header.get(key) != value:
                raise Refusal(
                    f"{folder / '.zarray'}: {key} is not {value!r} as {ORBAX_NAME} has it", _DAMAGED
                )
        _state(file.path, name)
        return file._read(name, rows)


def open_checkpoint(folder: Path) -> Stored:
    """The arrays of an orbax checkpoint that holds an adapter, their numbers unread.

    Raises:
        Refusal: another tool's checkpoint or a training run's, or an array that is missing or cut short.
    """
    file = folder / ORBAX_NAME
    state, settings = _state(file, folder.name), read_settings(file).get("custom_metadata")
    if not isinstance(settings, dict) or not str(settings.get("schema")).startswith("pamctl.orbax/"):
        raise Refusal(f"{folder} is an orbax checkpoint, but not of an adapter", _NOT_OURS)
    if settings["schema"] != SCHEMA:
        raise Refusal(f"{file}: schema is {shown(settings['schema'])}, not {SCHEMA!r}", "upgrade pamctl")
    modules, extras = (_records(file, settings, kind) for kind in ("modules", "extras"))
    if not modules and not extras:
        raise Refusal(f"{folder} holds no arrays", "give an adapter that adapts something")
    entries: dict[str, TensorEntry] = {}
    folders: dict[str, Path] = {}
    for index, record in enumerate(modules):
        for factor in "ab":
            name = f"{factor} of {record['id']}"
            entries[name] = _entry(file, name, record.get("dtype"), record.get(factor))
            folders[name] = folder / ARRAYS / f"modules.{index}.{factor}"
    for index, record in enumerate(extras):
        name = f"extra {record['id']}"
        entries[name] = _entry(file, name, record.get("dtype"), record.get("shape"))
        folders[name] = folder / ARRAYS / f"extras.{index}"
    files = {name: _file(folders[name], name, entry) for name, entry in entries.items()}
    return Stored(folder, OrbaxArrays(folder, entries, state, files=files), settings, file)


def recognises(stored: Stored) -> bool:
    """Whether the arrays were found in an orbax checkpoint."""
    return isinstance(stored.tensors, OrbaxArrays)


def read(stored: Stored) -> Contents:
    """The modules and extras of a checkpoint, their numbers unread.

    Raises:
        Refusal: shapes that are not the factors of a module of its kind, or an unknown kind of extra.
    """
    tensors, records = stored.tensors, stored.settings["modules"]
    pairs = {
        record["id"]: FactorPair(
            record["id"],
            f"a of {record['id']}",
            f"b of {record['id']}",
            1.0,
            embedding=record.get("layer") == "embedding",
        )
        for record in records
    }
    modules = paired_modules(tensors, pairs)
    for record in records:
        if (kind := modules.shapes[record["id"]].layer.kind) != record.get("layer"):
            raise Refusal(f"{stored.settings_file}: {record['id']} is {shown(record.get('layer'))}, "
                          f"but its arrays are {kind}", _DAMAGED)  # fmt: skip
    extras = {}
    for record in stored.settings["extras"]:
        name, role = record["id"], record.get("role")
        if role not in get_args(ExtraRole):
            raise Refusal(f"{stored.settings_file}: {name} is {shown(role)}", _DAMAGED)
        entry, read = tensors[f"extra {name}"], partial(tensors.stored, f"extra {name}")
        extras[name] = Extra(role, entry.shape, entry.dtype, read)
    base_model = stored.settings.get("base_model")
    return Contents(modules, base_model if isinstance(base_model, str) and base_model else None, extras)


def refuse_unwritable(adapter: Adapter, options: WriteOptions) -> None:
    """Refuse an empty extra, for which orbax has no place; all else that an adapter may hold it has."""
    for name, extra in adapter.extras.items():
        if 0 in extra.shape:
            raise Refusal(
                f"{name} {list(extra.shape)} is empty, and orbax keeps no empty array", "leave it out"
            )


def write(adapter: Adapter, factors: WrittenFactors, draft: Path, options: WriteOptions) -> None:
    """Write a checkpoint, which takes memory for the whole adapter.

    Equal adapters give equal bytes: the times and the path that orbax notes are taken out.
    """
    from orbax.checkpoint import v1 as ocp  # type: ignore[import-untyped]

    from pamctl.orbax_saving import orbax_saving

    tree: dict[str, dict[str, Any]] = {"modules": dict(_module_arrays(factors))}
    if adapter.extras:
        tree["extras"] = {
            str(index): np.asarray(extra.read()) for index, extra in enumerate(adapter.extras.values())
        }
    context = ocp.Context()
    saving = context.array.saving
    saving.use_ocdbt = saving.use_zarr3 = saving.use_compression = False
    new = draft / "checkpoint"  # orbax makes the folder itself
    with orbax_saving(), context:
        ocp.save(new.absolute(), tree, custom_metadata=_metadata(adapter, factors))
    for part in new.iterdir():
        part.rename(draft / part.name)
    new.rmdir()
    _forget_time_and_place(draft)


def _module_arrays(factors: WrittenFactors) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    for index, (module, shape) in enumerate(factors.shapes.items()):
        arrays = zip("ab", factors[module], factor_shapes(shape), strict=True)
        yield (
            str(index),
            {
                name: np.ascontiguousarray(values.astype(DTYPES[factors.dtype])).reshape(lengths)
                for name, values, lengths in arrays
            },
        )


def _metadata(adapter: Adapter, factors: WrittenFactors) -> dict[str, Any]:
    modules = []
    for module, shape in factors.shapes.items():
        a, b = factor_shapes(shape)
        modules.append(
            {"id": module, "layer": shape.layer.kind, "dtype": factors.dtype, "a": list(a), "b": list(b)}
        )
    extras = [
        {"id": name, "role": extra.role, "dtype": extra.dtype, "shape": list(extra.shape)}
        for name, extra in adapter.extras.items()
    ]
    base_model = adapter.base_model and public_name(adapter.base_model)
    return {"schema": SCHEMA, "base_model": base_model, "modules": modules, "extras": extras}


def _forget_time_and_place(folder: Path) -> None:
    file = folder / ORBAX_NAME
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata |= {"init_timestamp_nsecs": 0, "commit_timestamp_nsecs": 0}
    file.write_text(json.dumps(metadata, sort_keys=True), encoding="utf-8")
    (folder / "commit_success.txt").write_text("", encoding="utf-8")


def _records(file: Path, settings: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The records of all modules or extras, each of an id of its own."""
    records = settings.get(kind)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise Refusal(f"{file}: {kind} is not a list of records", _DAMAGED)
    if len(records) > MOST_TENSORS:
        raise Refusal(f"{file}: {len(records)} {kind}, more than {MOST_TENSORS}", "split the adapter")
    ids = [record.get("id") for record in records]
    for id in ids:
        if not is_tensor_name(id):
            raise Refusal(f"{file}: {shown(id)} among the {kind} is no id", _DAMAGED)
    if len(set(ids)) != len(ids):
        raise Refusal(f"{file}: an id stands twice among the {kind}", _DAMAGED)
    return records


def _entry(file: Path, name: str, dtype: Any, shape: Any) -> TensorEntry:
    known = isinstance(dtype, str) and dtype in DTYPES
    if not known or not isinstance(shape, list) or not is_shape(shape) or 0 in shape:
        raise Refusal(f"{file}: {name} is {shown(dtype)} of {shape!a:.100}, which is no array", _DAMAGED)
    return TensorEntry(dtype, tuple(shape), 0, int(np.prod(shape, dtype=int)) * DTYPES[dtype].itemsize)


def _file(folder: Path, name: str, entry: TensorEntry) -> TensorFile:
    """The one chunk of a zarr array, a file of its own."""
    chunk = folder / (".".join("0" for _ in entry.shape) or "0")
    state = _state(chunk, name)
    if state.size != entry.size:
        raise Refusal(f"{chunk} has {state.size} bytes, where {name} takes {entry.size}", _DAMAGED)
    return TensorFile(chunk, {name: entry}, state)


def _state(file: Path, name: str) -> FileState:
    """The state of a file that has to be there."""
    try:
        found = os.stat(file)
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise Refusal(f"{file} is missing, which belongs to {name}", _DAMAGED)
    return FileState.of(found)


def _zarr_header(dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What decides how the bytes of an array are read, as zarr 2 has it."""
    numpy_dtype = DTYPES[dtype]
    return {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(shape),
        "dtype": numpy_dtype.str if dtype in ("F64", "F32", "F16") else numpy_dtype.name,
        "order": "C",
        "compressor": None,
        "filters": None,
    }
