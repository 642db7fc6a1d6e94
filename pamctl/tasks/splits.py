"""Which released examples a task's splits are made of, such as `train+val[:-10240]`, and how many."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.task import Example
from pamctl.tasks.visits import subsample

_PART = re.compile(r"\s*([\w-]+)\s*(?:\[\s*(-?\d*)\s*:\s*(-?\d*)\s*\])?\s*")

LEFT_OUT = "examples without their image are left out: pamctl tasks check tells how many"
"""What is said of a task whose TOML allows that."""

Rows = Callable[[str], Iterator[Example | Refusal]]
"""Released split -> each of its examples, or the refusal that tells what is wrong with it."""


@dataclass(frozen=True)
class Part:
    """A released split, or a slice of it as Python counts."""

    released: str
    first: int | None = None
    last: int | None = None


def parts_of(expression: str, released: Sequence[str], where: str) -> list[Part]:
    """The parts that `+` joins in an expression.

    Args:
        released: the splits there are; empty where that is not known yet.
        where: what is named in a refusal.
    """
    parts = []
    for text in expression.split("+"):
        match = _PART.fullmatch(text)
        if not match or (released and match[1] not in released):
            raise UsageRefusal(
                f"{where}: {text.strip()!r} is no split of the release",
                f"give {', '.join(released) or 'its splits'}, joined by +, whole or in part: val[:-1000]",
            )
        first, last = (int(bound) if bound else None for bound in (match[2], match[3]))
        parts.append(Part(match[1], first, last))
    return parts


class ReadSplits(Mapping[str, Sequence[Example]]):
    """Splits that are read when first asked for.

    Args:
        rows: reads a released split.
        parts: of each split.
        most: of a split, how many of its examples are kept, drawn by id; those that are not named have all.
        seed: of that draw.
        sizes: of the released splits, where the release tells them.
        left_out: tells how many examples were passed over so far, because their image is missing.
    """

    def __init__(
        self,
        rows: Rows,
        parts: Mapping[str, Sequence[Part]],
        most: Mapping[str, int] = MappingProxyType({}),
        seed: int = 0,
        sizes: Mapping[str, int] = MappingProxyType({}),
        left_out: Callable[[], int] = lambda: 0,
    ) -> None:
        self.left_out = left_out
        self._rows, self._parts, self._most, self._seed, self._sizes = rows, parts, most, seed, sizes
        self._read: dict[str, list[Example]] = {}

    def __getitem__(self, split: str) -> list[Example]:
        """The examples; refuses the first that is at fault."""
        if split not in self._read:
            found = []
            for row in self.rows(split):
                if isinstance(row, Refusal):
                    raise row
                found.append(row)
            self._read[split] = found
        return self._read[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def rows(self, split: str) -> Iterator[Example | Refusal]:
        """Every example of a split or its fault, in order; only what is sliced or drawn from is held."""
        joined = (row for part in self._parts[split] for row in self._part(part))
        if split not in self._most:
            yield from joined
            return
        kept = list(joined)
        ids = [row.id if isinstance(row, Example) else "" for row in kept]
        for place in subsample(ids, self._most[split], self._seed):
            yield kept[place]

    def alike(self) -> list[list[str]]:
        """The names of the splits, those together that are made of the same examples."""
        groups: dict[object, list[str]] = {}
        for split, parts in self._parts.items():
            groups.setdefault((tuple(parts), self._most.get(split)), []).append(split)
        return list(groups.values())

    def released_size(self, split: str) -> int | None:
        """How many examples a split has in the release as it was; None where that is not known."""
        parts = self._parts[split]
        if split in self._most or any(part != Part(part.released) for part in parts):
            return None
        sizes = [self._sizes.get(part.released) for part in parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def _part(self, part: Part) -> Iterator[Example | Refusal]:
        rows = self._rows(part.released)
        whole = part.first is None and part.last is None
        return rows if whole else iter(list(rows)[part.first : part.last])
