"""Where an adapter comes from: `pamctl.json`, the record that stands beside its weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Self, get_args

from pamctl import __version__
from pamctl.adapters.tensor_file import LARGEST_SETTINGS, parsed_json, shown
from pamctl.refusal import Refusal

FILE_NAME = "pamctl.json"
METADATA_NAME = "pamctl"
SCHEMA = "pamctl.adapter/1"

Kind = Literal["trained", "aligned", "merged", "converted"]
Stage = Literal["base", "trained", "merged"]


@dataclass(frozen=True)
class Parent:
    """An adapter whose factors this one was made from.

    Args:
        name: a Hub repository, never a path.
        commit: of that repository, resolved when it was fetched.
        path: of the folder or file in that repository; None for its root.
    """

    fingerprint: str
    name: str | None = None
    commit: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class BaseModel:
    """The base model the adapter belongs to; `fingerprint` is None where only its name is known."""

    name: str
    fingerprint: str | None = None


@dataclass(frozen=True)
class Provenance:
    """The record of one adapter. It holds no times and no paths, so the same inputs give the same bytes.

    Args:
        kind: what made it: trained, aligned, merged or converted.
        stage: where it stands in the sequence, as results name it: base, trained or merged.
        tasks: the tasks learned so far, in order.
        parents: the adapters its factors started from or were combined from, in order.
        base: the base model.
        method: the method's name, such as `pam` or `average`.
        parameters: every parameter of the method that decides the numbers.
        seed: the seed of a random method, else None.
        conflicts: conflict counts and shares where alignment was part of it.
        versions: the release of pamctl, and of libraries that decide the numbers.
        fingerprint: of the adapter itself as written; it is checked when the weights are read whole.
    """

    kind: Kind
    stage: Stage
    tasks: tuple[str, ...] = ()
    parents: tuple[Parent, ...] = ()
    base: BaseModel | None = None
    method: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    conflicts: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: {"pamctl": __version__})
    fingerprint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `pamctl.json` holds."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Raises ValueError that names the field which is wrong."""
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            found = record.get("schema") if isinstance(record, dict) else record
            raise ValueError(f"schema is {shown(found)}, not {SCHEMA!r}")
        if record.get("kind") not in get_args(Kind):
            raise ValueError(f"kind is {shown(record.get('kind'))}, not one of {', '.join(get_args(Kind))}")
        if record.get("stage") not in get_args(Stage):
            raise ValueError(
                f"stage is {shown(record.get('stage'))}, not one of {', '.join(get_args(Stage))}"
            )
        return cls(
            kind=record["kind"],
            stage=record["stage"],
            tasks=tuple(
                _typed(task, str, "tasks") for task in _typed(record.get("tasks", []), list, "tasks")
            ),
            parents=tuple(_parent(parent) for parent in _typed(record.get("parents", []), list, "parents")),
            base=None if record.get("base") is None else _base(record["base"]),
            method=_optional(record.get("method"), str, "method"),
            parameters=_typed(record.get("parameters", {}), dict, "parameters"),
            seed=_optional(record.get("seed"), int, "seed"),
            conflicts=_optional(record.get("conflicts"), dict, "conflicts"),
            versions=_typed(record.get("versions", {}), dict, "versions"),
            fingerprint=_optional(record.get("fingerprint"), str, "fingerprint"),
        )


def public_name(model: str) -> str:
    """A model's name as it may be recorded: a Hub name as it is, and of a path only the last part."""
    absolute = PurePosixPath(model).is_absolute() or PureWindowsPath(model).is_absolute()
    return PureWindowsPath(model).name if absolute or model.startswith((".", "~")) else model


def read_provenance(folder: Path) -> Provenance | None:
    """The record in an adapter's folder, or None where there is none.

    Raises:
        Refusal: the file is there but is not a record this release can read.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST_SETTINGS:
        raise Refusal(f"{file} is larger than {LARGEST_SETTINGS} bytes", "take it away to go without")
    return _parsed(file.read_bytes(), file)


def write_provenance(provenance: Provenance, folder: Path) -> None:
    """Write `pamctl.json` into a folder."""
    (folder / FILE_NAME).write_text(_text(provenance, indent=2) + "\n", encoding="utf-8")


def embedded_provenance(metadata: Mapping[str, str], file: Path) -> Provenance | None:
    """The record in the metadata of a single file, or None; errors are those of `read_provenance`."""
    return _parsed(metadata[METADATA_NAME], file) if METADATA_NAME in metadata else None


def embedding(provenance: Provenance | None) -> dict[str, str]:
    """The metadata that carries a record inside a single file."""
    return {} if provenance is None else {METADATA_NAME: _text(provenance)}


def _text(provenance: Provenance, indent: int | None = None) -> str:
    return json.dumps(
        provenance.to_json(), indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False
    )


def _parsed(text: str | bytes, file: Path) -> Provenance:
    try:
        return Provenance.from_json(parsed_json(text))
    except (ValueError, RecursionError) as fault:
        raise Refusal(
            f"{file}: {fault}",
            "upgrade pamctl if a newer release wrote it, else take the record away to go without",
        ) from fault


def _parent(record: Any) -> Parent:
    fields = _typed(record, dict, "parents")
    return Parent(
        _typed(fields.get("fingerprint"), str, "parents: fingerprint"),
        _optional(fields.get("name"), str, "parents: name"),
        _optional(fields.get("commit"), str, "parents: commit"),
        _optional(fields.get("path"), str, "parents: path"),
    )


def _base(record: Any) -> BaseModel:
    fields = _typed(record, dict, "base")
    return BaseModel(
        _typed(fields.get("name"), str, "base: name"),
        _optional(fields.get("fingerprint"), str, "base: fingerprint"),
    )


def _typed(value: Any, kind: type, field_name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{field_name} holds {shown(value)}, not a {kind.__name__}")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{field_name} holds {shown(value)}, which does not print")
    return value


def _optional(value: Any, kind: type, field_name: str) -> Any:
    return None if value is None else _typed(value, kind, field_name)
