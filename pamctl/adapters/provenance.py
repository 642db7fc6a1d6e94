"""Where an adapter comes from: `pamctl.json`, the record that stands beside its weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Self, get_args

from pamctl import __version__
from pamctl.refusal import Refusal

FILE_NAME = "pamctl.json"
SCHEMA = "pamctl.adapter/1"

Kind = Literal["trained", "aligned", "merged", "converted"]
Stage = Literal["base", "trained", "merged"]


@dataclass(frozen=True)
class Parent:
    """An adapter whose factors this one was made from; `name` is a public name, never a path."""

    fingerprint: str
    name: str | None = None


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

    def to_json(self) -> dict[str, Any]:
        """The object that `pamctl.json` holds."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Raises ValueError that names the field which is wrong."""
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            found = record.get("schema") if isinstance(record, dict) else record
            raise ValueError(f"schema is {found!r}, not {SCHEMA!r}")
        if record.get("kind") not in get_args(Kind):
            raise ValueError(f"kind is {record.get('kind')!r}, not one of {', '.join(get_args(Kind))}")
        if record.get("stage") not in get_args(Stage):
            raise ValueError(f"stage is {record.get('stage')!r}, not one of {', '.join(get_args(Stage))}")
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
    try:
        return Provenance.from_json(json.loads(file.read_bytes()))
    except (ValueError, RecursionError) as fault:
        raise Refusal(
            f"{file}: {fault}",
            "upgrade pamctl if a newer release wrote it, else delete the file to go without",
        ) from fault


def write_provenance(provenance: Provenance, folder: Path) -> None:
    """Write `pamctl.json` into a folder."""
    text = json.dumps(provenance.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _parent(record: Any) -> Parent:
    fields = _typed(record, dict, "parents")
    return Parent(
        _typed(fields.get("fingerprint"), str, "parents: fingerprint"),
        _optional(fields.get("name"), str, "parents: name"),
    )


def _base(record: Any) -> BaseModel:
    fields = _typed(record, dict, "base")
    return BaseModel(
        _typed(fields.get("name"), str, "base: name"),
        _optional(fields.get("fingerprint"), str, "base: fingerprint"),
    )


def _typed(value: Any, kind: type, field_name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{field_name} holds {value!r}, not a {kind.__name__}")
    return value


def _optional(value: Any, kind: type, field_name: str) -> Any:
    return None if value is None else _typed(value, kind, field_name)
