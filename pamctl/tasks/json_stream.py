"""How the records of a large JSON document are read one after the other, each with the line it is on.

The releases keep hundreds of megabytes in one list or object, which `json.load` turns into gigabytes. Here
the standard parser is given one element at a time.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pamctl.refusal import Refusal, UsageRefusal

BLOCK = 1 << 20
MOST_CHARACTERS = 1 << 26
"""Of one element; none in a release has a thousandth of it."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a list or object.

    Attributes:
        key: its place in a list, or its name in an object.
        line: where it begins, from 1.
    """

    key: int | str
    line: int
    value: Any


def read_elements(path: Path, member: str | None = None) -> Iterator[Element]:
    """Every element of the list or object that a JSON file holds, or that a member of it is.

    Args:
        member: name of the member of the outermost object that holds the elements; None for the outermost
            list or object itself.

    Raises:
        UsageRefusal: there is no such file.
        Refusal: it is not UTF-8 or not JSON, is cut off, or has no such member; file and line are named.
    """
    if not path.is_file():
        raise UsageRefusal(f"{path} does not exist", "put the release's file there")
    with path.open("rb") as file:
        text = _Text(path, file)
        opened = text.character("[{" if member is None else "{")
        if member is None:
            yield from _elements(text, opened)
            return
        for name in _names(text):
            if name == member:
                yield from _elements(text, text.character("[{"))
                return
            text.value()
        raise Refusal(f"{path} has no member `{member}`", "use the file as it was released")


def _elements(text: "_Text", opened: str) -> Iterator[Element]:
    if opened == "{":
        for name in _names(text):
            line = text.line
            yield Element(name, line, text.value())
        return
    count = 0
    while text.more("]", first=count == 0):
        line = text.line
        yield Element(count, line, text.value())
        count += 1


def _names(text: "_Text") -> Iterator[str]:
    first = True
    while text.more("}", first=first):
        name = text.value()
        if not isinstance(name, str):
            raise text.fault("a name in quotes is missing")
        text.character(":")
        yield name
        first = False


class _Text:
    """The characters of a file from where the reader is, read in blocks."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held, self._at, self._ended = "", 0, False
        self._line, self._counted, self._broken = 1, 0, False
        self._read()
        self._held = self._held.removeprefix("\ufeff")

    @property
    def line(self) -> int:
        """The line of the next character that is no space."""
        self._skip()
        if self._broken:
            self._line += self._held.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def character(self, wanted: str) -> str:
        """Take the next character that is no space, one of those wanted."""
        self._skip()
        found = self._held[self._at : self._at + 1]
        if not found or found not in wanted:
            raise self.fault("it is cut off" if not found else f"{' or '.join(wanted)} is missing")
        self._at += 1
        return found

    def more(self, closing: str, *, first: bool) -> bool:
        """Whether another element follows; takes the comma before it, or the closing bracket."""
        self._skip()
        if self._held[self._at : self._at + 1] == closing:
            self._at += 1
            return False
        if not first:
            self.character(",")
        return True

    def value(self) -> Any:
        """Take the value that comes next, whole."""
        self._skip()
        wanted = BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except (ValueError, RecursionError) as fault:
                if self._ended or not isinstance(fault, json.JSONDecodeError):
                    raise self._not_json(fault) from fault
            else:
                # What touches the end may go on in the next block, as a number does.
                if end < len(self._held) or self._ended:
                    self._at = end
                    return value
            if len(self._held) - self._at > MOST_CHARACTERS:
                raise self.fault(
                    f"an element has more than {MOST_CHARACTERS} characters, or its end is missing"
                )
            self._read(wanted)
            wanted *= 2

    def fault(self, what: str) -> Refusal:
        return Refusal(f"{self._path} line {self.line} is not JSON: {what}", "download the file once more")

    def _not_json(self, fault: Exception) -> Refusal:
        if isinstance(fault, RecursionError):
            return self.fault("it is nested too deeply")
        if not isinstance(fault, json.JSONDecodeError):
            return self.fault("a number has too many digits")
        line = self.line + self._held.count("\n", self._at, fault.pos)
        cut = fault.pos >= len(self._held.rstrip()) or fault.msg.startswith("Unterminated string")
        what = "it is cut off" if cut else fault.msg
        return Refusal(f"{self._path} line {line} is not JSON: {what}", "download the file once more")

    def _skip(self) -> None:
        if self._at < len(self._held) and self._held[self._at] > " ":
            return
        while True:
            space = _SPACE.match(self._held, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._held) or self._ended:
                return
            self._read()

    def _read(self, size: int = BLOCK) -> None:
        """Add a block behind what is held, and let go of what was taken."""
        self._line += self._held.count("\n", self._counted, self._at)
        block = self._file.read(size)
        self._ended = not block
        try:
            self._held = self._held[self._at :] + self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as fault:
            line = self._line + self._held.count("\n", self._at)
            raise Refusal(f"{self._path} is not UTF-8 near line {line}", "save the file as UTF-8") from fault
        self._at = self._counted = 0
        self._broken = "\n" in self._held
