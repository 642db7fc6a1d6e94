"""What the fields of a record are, checked one by one, so that a wrong one is refused by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pamctl.adapters.provenance import Stage


@dataclass(frozen=True)
class Fields:
    """The fields of one kind of record.

    Attributes:
        kinds: of each field, the types that its value may have, or that each item of a list may have.
        required: those that no record lacks.
        lists: those that hold a list.
    """

    schema: str
    kinds: Mapping[str, tuple[type, ...]]
    required: tuple[str, ...]
    lists: tuple[str, ...]

    def read(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The known fields of a record that are not null, lists as tuples; others are left alone.

        Raises:
            ValueError: names the field that is wrong or missing.
        """
        if record.get("schema", self.schema) != self.schema:
            raise ValueError(f"`schema` is {record['schema']!r}, not {self.schema!r}")
        known: dict[str, Any] = {}
        for name, kinds in self.kinds.items():
            if (value := record.get(name)) is None:
                continue
            if name in self.lists:
                fits = isinstance(value, list) and {*map(type, value)}.issubset(kinds)
            else:
                fits = is_a(value, kinds)
            if not fits:
                raise ValueError(f"`{name}` is {value!r}")
            known[name] = tuple(value) if name in self.lists else value
        for name in self.required:
            if name not in known:
                raise ValueError(f"`{name}` is missing")
        return known


def refuse_other_stage(stage: str | None) -> None:
    """Raise ValueError for a stage that is not one of `Stage`; None is unknown."""
    if stage is not None and stage not in get_args(Stage):
        raise ValueError(f"`stage` is {stage!r}, not one of {', '.join(get_args(Stage))}")


def is_a(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value of JSON has one of some types; true and false are no numbers, and neither is NaN."""
    return type(value) in kinds and value == value
