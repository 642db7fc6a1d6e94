"""What every format has in common: an adapter's files as found, and what is read from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import ComputedModules, Float32
from pamctl.adapters.tensor_file import LARGEST_SETTINGS, TensorFile, parsed_json
from pamctl.refusal import Refusal


@dataclass(frozen=True)
class Stored:
    """An adapter's files, checked as files but not yet understood.

    Args:
        folder: where they lie.
        tensors: names, shapes and places; their numbers unread.
        settings: what `adapter_config.json` holds, empty where there is none.
        settings_file: that file, for messages; where there is none, the file of the tensors.
    """

    folder: Path
    tensors: TensorFile
    settings: Mapping[str, Any]
    settings_file: Path

    @property
    def file(self) -> Path:
        return self.tensors.path


@dataclass(frozen=True)
class Contents:
    """What a format makes of the files: the adapter, less its name and its record."""

    modules: ComputedModules
    base_model: str | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    denoiser: str | None = None
    routers: Mapping[str, Float32] = field(default_factory=dict)


def read_settings(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds, no name in it twice."""
    if file.stat().st_size > LARGEST_SETTINGS:
        raise Refusal(f"{file} is larger than {LARGEST_SETTINGS} bytes", "fetch or write the adapter again")
    return parsed_settings(file.read_bytes(), str(file))


def parsed_settings(text: str | bytes, place: str) -> dict[str, Any]:
    """The object that a JSON text holds, no name in it twice; `place` is for the message."""
    try:
        settings = parsed_json(text)
    except (ValueError, RecursionError) as fault:
        raise Refusal(f"{place} is not JSON: {fault}", "fetch or write the adapter again") from fault
    if not isinstance(settings, dict):
        raise Refusal(f"{place} does not hold an object", "fetch or write the adapter again")
    return settings
