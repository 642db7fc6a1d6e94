"""Rows of a table on disk: texts are read many at once, a picture when it is looked at."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pamctl.refusal import Refusal
from pamctl.tasks.json_stream import Element
from pamctl.tasks.releases.record import Record

AT_ONCE = 1000


class Row(Record):
    """One row of a table; its key is its number, from 0."""

    __slots__ = ()

    @property
    def where(self) -> str:
        return f"{self._path} row {self.key}"

    def fault(self, what: str, way_on: str = "name other columns in [columns], or mend the data") -> Refusal:
        return super().fault(what, way_on)


@dataclass(frozen=True)
class Shown:
    """What the column of pictures has in a row: a picture in the table, the name of a file, or nothing."""

    encoded: bool
    name: str | None


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a split.

    Attributes:
        place: what a person is told of where it is.
        rows: a `datasets.Dataset` whose batches are tables of Arrow: views of a file on disk.
    """

    place: str
    rows: Any

    @property
    def columns(self) -> Sequence[str]:
        return list(self.rows.column_names)

    def read(self, texts: Sequence[str], image: str) -> Iterator[Row]:
        """Every row: these columns, numbers of labels by their names, and a `Shown` as `image`."""
        labels = {name: getattr(self.rows.features[name], "names", None) for name in texts}
        number = 0
        for batch in self.rows.iter(batch_size=AT_ONCE):
            for values, shown in zip(
                batch.select(list(texts)).to_pylist(), _shown(batch[image]), strict=True
            ):
                named = {name: _label(value, labels[name]) for name, value in values.items()}
                yield Row(Path(self.place), Element(number, number, {**named, image: shown}))
                number += 1


@dataclass(frozen=True, eq=False)
class ColumnOfPictures:
    """The pictures that a table holds, by the number of their row; a source of images."""

    table: Table
    column: str

    def find(self, name: str) -> str | None:
        return name if name.isdigit() and int(name) < len(self.table.rows) else None

    def open(self, name: str) -> IO[bytes]:
        value = self.table.rows[int(name)][self.column][0].as_py()
        return io.BytesIO(value["bytes"] if isinstance(value, dict) else value)

    def place_of(self, name: str) -> str:
        return f"{self.table.place} row {name} ({self.column})"


def _label(value: Any, names: Sequence[str] | None) -> Any:
    """The name of a label, where a column has labels."""
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _shown(column: Any) -> Iterator[Shown]:
    """Of each row; the bytes of pictures stay where they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    encoded, names = [False] * len(column), [None] * len(column)
    if pa.types.is_struct(kind):
        parts = {part.name: part.type for part in kind}
        if _is_bytes(parts.get("bytes")):
            encoded = pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()
        if _is_text(parts.get("path")):
            names = pc.struct_field(column, "path").to_pylist()
    elif _is_bytes(kind):
        encoded = pc.is_valid(column).to_pylist()
    elif _is_text(kind):
        names = column.to_pylist()
    yield from map(Shown, encoded, names)


def _is_bytes(kind: Any) -> bool:
    """Of a type of Arrow, or None."""
    from pyarrow import types

    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    """Of a type of Arrow, or None."""
    from pyarrow import types

    return kind is not None and (types.is_string(kind) or types.is_large_string(kind))
