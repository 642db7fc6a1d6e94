"""Which pattern of a peft config speaks of a module, as peft matches it but in bounded time."""

import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import regex

from pamctl.refusal import Refusal

SECONDS_TO_MATCH = 5.0  # for all patterns of a field against all modules: a hostile one would take years
_REPEATS = frozenset("*+?{(")  # a pattern with none of these is matched at once


class PeftPatterns:
    """The keys of `rank_pattern` or `alpha_pattern`, in their order.

    Args:
        place: the file and the field, for messages.

    Raises:
        Refusal: a pattern that is none; later on, patterns that take too long.
    """

    def __init__(self, file: Path, field: str, patterns: Iterable[str]) -> None:
        self._place = f"{file}: {field}"
        self._deadline = time.monotonic() + SECONDS_TO_MATCH
        self._matchers = {pattern: self._matcher(pattern) for pattern in patterns}

    def first(self, path: str) -> str | None:
        """The first pattern that matches the end of a module's path, from a dot on, or all of it."""
        if self._matchers and time.monotonic() > self._deadline:
            raise self._too_slow()
        try:
            return next((pattern for pattern, matches in self._matchers.items() if matches(path)), None)
        except TimeoutError as fault:
            raise self._too_slow() from fault

    def _matcher(self, pattern: str) -> Callable[[str], Any]:
        if time.monotonic() > self._deadline:
            raise self._too_slow()
        whole = rf"(.*\.)?({pattern})$"
        try:
            compiled = re.compile(whole)
            if _REPEATS.isdisjoint(pattern):
                return partial(self._match_plain, compiled)
            return partial(self._match, regex.compile(whole))
        except (re.error, regex.error, RecursionError, OverflowError) as fault:
            raise Refusal(f"{self._place} holds a pattern that is none: {fault}", "correct it") from fault

    def _match_plain(self, compiled: "re.Pattern[str]", path: str) -> bool:
        return bool(compiled.match(path))

    def _match(self, compiled: Any, path: str) -> bool:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return bool(compiled.match(path, timeout=left))

    def _too_slow(self) -> Refusal:
        return Refusal(
            f"{self._place} takes longer than {SECONDS_TO_MATCH:g} s to match", "simplify its patterns"
        )
