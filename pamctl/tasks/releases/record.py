"""What is asked of one record of a release: its fields, each of its kind, and faults by file and line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pamctl.refusal import Refusal
from pamctl.tasks.json_stream import Element, read_elements

WAY_ON = "use the file as it was released"


class Record:
    """The fields of an object in a JSON file.

    Args:
        element: what stands there, whatever it is.

    Raises:
        Refusal: it is no object.
    """

    __slots__ = ("_element", "_path", "fields")

    def __init__(self, path: Path, element: Element) -> None:
        self._path, self._element = path, element
        self.fields: dict[str, Any] = element.value
        if not isinstance(element.value, dict):
            raise self.fault(f"is {kind(element.value)}, not an object")

    @property
    def key(self) -> str:
        """Its name in the object that holds it, or its place in the list."""
        return str(self._element.key)

    @property
    def where(self) -> str:
        """File, line and key."""
        return f"{self._path} line {self._element.line} ({self.key})"

    def fault(self, what: str, way_on: str = WAY_ON) -> Refusal:
        """The refusal that says what is wrong with this record."""
        return Refusal(f"{self.where} {what}", way_on)

    def text(self, name: str, default: str | None = None) -> str:
        """A field that is a text; `default` where it is absent or null, if there is one."""
        value = self.fields.get(name)
        if isinstance(value, str):
            return value
        if value is None and default is not None:
            return default
        raise self._other(name, value, "a text")

    def whole(self, name: str) -> int:
        """A field that is a whole number."""
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._other(name, value, "a whole number")

    def truth(self, name: str, default: bool | None = None) -> bool:
        """A field that is true or false; `default` where it is absent or null, if there is one."""
        value = self.fields.get(name)
        if isinstance(value, bool):
            return value
        if value is None and default is not None:
            return default
        raise self._other(name, value, "true or false")

    def name(self, name: str) -> str:
        """A field that names something: a text or a whole number, as text."""
        value = self.fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
        raise self._other(name, value, "a name or number")

    def texts(self, name: str, of: str | None = None) -> list[str]:
        """A field that is a list of texts, or of objects of each of which the field `of` is one."""
        value = self.fields.get(name)
        if isinstance(value, list):
            found = [each.get(of) if of and isinstance(each, dict) else each for each in value]
            texts = [text for text in found if isinstance(text, str)]
            if len(texts) == len(found):
                return texts
        raise self._other(name, value, f"a list of objects with `{of}`" if of else "a list of texts")

    def _other(self, name: str, value: object, wanted: str) -> Refusal:
        if name not in self.fields:
            return self.fault(f"has no `{name}`")
        return self.fault(f"has {kind(value)} as `{name}`, not {wanted}")


def read_records(path: Path, member: str | None = None) -> Iterator[Record | Refusal]:
    """The records of a list or object in a JSON file, see `read_elements`; what is no object is a refusal."""
    for element in read_elements(path, member):
        try:
            yield Record(path, element)
        except Refusal as fault:
            yield fault


def first_record(path: Path, member: str | None = None) -> Record | None:
    """The first record, by which releases are told apart; None where it cannot be read."""
    try:
        first = next(read_records(path, member), None)
    except Refusal:
        return None
    return first if isinstance(first, Record) else None


def kind(value: object) -> str:
    """What a person is told that a value of JSON is."""
    kinds = {dict: "an object", list: "a list", bool: "true or false", str: "a text"}
    if value is None:
        return "null"
    return "an empty text" if value == "" else kinds.get(type(value), "a number")
