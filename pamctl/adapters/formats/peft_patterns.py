"""Which names and patterns of a peft config speak of a module, as peft matches them but in bounded time."""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import regex

from pamctl.adapters.module_names import tower
from pamctl.refusal import Refusal

PREFIX = "base_model.model."
"""What stands before every module's path in a file of peft's."""

SECONDS_TO_MATCH = 5.0  # for all of a field against all modules: a hostile one would take years
_ESCAPED_NAME = re.compile(r"\^?(?:[\w-]|\\[.-])+")  # a pattern that one name matches and nothing else
_NUMBERED = re.compile(r"\.\d+(\.|$)")
_REPEATS = frozenset("*+?{(")  # a pattern with none of these is matched at once


class _Clock:
    """The time that is left for one field of a config, `place` being the file and the field for messages."""

    def __init__(self, file: Path, field: str) -> None:
        self.place = f"{file}: {field}"
        self._end = time.monotonic() + SECONDS_TO_MATCH

    def left(self) -> float:
        """Seconds; a refusal when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.too_slow()
        return left

    def too_slow(self) -> Refusal:
        return Refusal(f"{self.place} takes longer than {SECONDS_TO_MATCH:g} s to match", "simplify it")


def target_modules(names: Sequence[str]) -> list[str] | str:
    """What `target_modules` has to be for peft to adapt the modules of these names and no other.

    The names of a list match the ends of paths, in whichever release of transformers. Of a denoiser, whose
    paths are the same in all, one from outside its blocks may end others' too, as Flux' proj_out does: then
    it is the pattern of the whole paths.
    """
    towers = {tower(name) for name in names}
    of_a_denoiser = "denoiser" in towers and towers <= {"denoiser", "other"}
    if of_a_denoiser and not all(_NUMBERED.search(name) for name in names):
        return "|".join(map(re.escape, names))
    return list(names)


class PeftPatterns:
    """The keys of `rank_pattern` or `alpha_pattern`, in their order.

    Raises:
        Refusal: a pattern that is none; later on, patterns that take too long.
    """

    def __init__(self, file: Path, field: str, patterns: Iterable[str]) -> None:
        self._clock = _Clock(file, field)
        self._patterns = list(patterns)
        self._places: dict[str, int] = {}
        self._matchers: dict[int, Callable[[str], Any]] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of syntax that may come to mean something else
            for place, pattern in enumerate(self._patterns):
                if _ESCAPED_NAME.fullmatch(pattern):
                    self._places.setdefault(pattern.replace("\\", ""), place)
                else:
                    self._matchers[place] = self._matcher(pattern)

    def first(self, path: str) -> str | None:
        """The first pattern that matches the end of a module's path, from a dot on, or all of it."""
        if not self._patterns:
            return None
        self._clock.left()
        none = len(self._patterns)
        named = min(self._places.get(end, none) for end in (f"^{path}", *ends(path)))
        place = next(
            (place for place, matches in self._matchers.items() if place < named and matches(path)), named
        )
        return None if place == none else self._patterns[place]

    def _matcher(self, pattern: str) -> Callable[[str], Any]:
        self._clock.left()
        whole = rf"(.*\.)?({pattern})$"
        try:
            compiled = re.compile(whole)
            return (
                compiled.match if _REPEATS.isdisjoint(pattern) else partial(self._match, regex.compile(whole))
            )
        except (re.error, regex.error, RecursionError, OverflowError) as fault:
            raise Refusal(
                f"{self._clock.place} holds a pattern that is none: {fault}", "correct it"
            ) from fault

    def _match(self, compiled: Any, path: str) -> Any:
        try:
            return compiled.match(path, timeout=self._clock.left())
        except TimeoutError as fault:
            raise self._clock.too_slow() from fault


def ends(path: str) -> Iterator[str]:
    """A module's path and every end of it from a dot on."""
    while path:
        yield path
        path = path.partition(".")[2]


class PeftNames:
    """The names of `modules_to_save`: each stands for every module whose path it ends, and what lies in it.

    Raises:
        Refusal: later on, names that take too long.
    """

    def __init__(self, file: Path, field: str, names: Iterable[str]) -> None:
        self._clock = _Clock(file, field)
        self._names = frozenset(names)
        self._lengths = sorted({len(name) for name in self._names})

    def match(self, path: str) -> bool:
        """Whether a name stands for the module."""
        if not self._names:
            return False
        self._clock.left()
        ends = [at for at, letter in enumerate(path) if letter == "."] + [len(path)]
        return any(
            path[end - length : end] in self._names
            for end in ends
            for length in self._lengths
            if length <= end
        )
