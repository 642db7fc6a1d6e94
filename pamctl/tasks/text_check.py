"""Whether the texts of a task fit into its text length, counted by the tokenizer of a base, many at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pamctl.tasks.task import Example

if TYPE_CHECKING:
    from pamctl.models.tokenizer import Tokenizer

AT_ONCE = 8192


def _nothing() -> "Future[None]":
    """What is waited for before anything is counted."""
    done: Future[None] = Future()
    done.set_result(None)
    return done


@dataclass
class TextLengths:
    """Counts the tokens of examples as they come.

    Attributes:
        reference: of the base; None for the embedded one.
        text_length: most tokens of prefix, separator and answer together.
        every_answer: whether all answers are trained on, not the first alone.
        base: the name of the base, once opened.
        longest: most tokens found.
    """

    reference: str | None
    text_length: int
    every_answer: bool = False
    base: str = ""
    longest: int = 0
    _cut: list[str] = field(default_factory=list)
    _without: list[str] = field(default_factory=list)
    _waiting: list[tuple[str, str, str]] = field(default_factory=list)
    _suffixes: dict[str, int | None] = field(default_factory=dict)
    _opened: "Tokenizer | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tokens"))
    _counting: "Future[None]" = field(default_factory=_nothing)

    def add(self, split: str, example: Example) -> None:
        """Count an example, with others that follow, while the caller goes on."""
        answers = dict.fromkeys(example.answers if self.every_answer else example.answers[:1])
        # What is longest in characters is all but always so in tokens, and one is enough to tell.
        longest = max(answers, key=len)
        self._waiting.append((f"{split} {example.id}", example.prefix, longest))
        if len(self._waiting) >= AT_ONCE:
            self._count_behind()

    def counted(self) -> "TextLengths":
        """Wait until all are counted."""
        self._count_behind()
        self._counting.result()
        return self

    def _count_behind(self) -> None:
        """Hand what waits to the other thread; the tokenizer needs no lock of Python's."""
        self._counting.result()
        self._counting = self._thread.submit(self._count, self._waiting)
        self._waiting = []

    def _count(self, waiting: Sequence[tuple[str, str, str]]) -> None:
        if not waiting:
            return
        tokenizer = self._tokenizer()
        names, prefixes, suffixes = zip(*waiting, strict=True)
        # Answers come again and again, prompts hardly.
        new = [suffix for suffix in dict.fromkeys(suffixes) if suffix not in self._suffixes]
        self._suffixes.update(zip(new, tokenizer.lengths(new), strict=True))
        for name, prompt, suffix in zip(names, tokenizer.lengths(prefixes), suffixes, strict=True):
            answer = self._suffixes[suffix]
            if prompt is None or answer is None:
                self._without.append(name)
                continue
            length = prompt + answer + tokenizer.added
            self.longest = max(self.longest, length)
            if length > self.text_length:
                self._cut.append(name)

    def told(self, named: Callable[[Sequence[str]], str]) -> Iterator[str]:
        """What is wrong, one line a kind of fault."""
        if self._without:
            yield (
                f"{len(self._without)} examples hold what the tokenizer of {self.base} has no token for: "
                f"{named(self._without)}"
            )
        if self._cut:
            yield (
                f"{len(self._cut)} examples are cut by the text length {self.text_length}, the longest has "
                f"{self.longest} tokens by the tokenizer of {self.base}: {named(self._cut)}"
            )

    def _tokenizer(self) -> "Tokenizer":
        if self._opened is None:
            from pamctl.models.checkpoint import open_tokenizer

            self.base, self._opened = open_tokenizer(self.reference)
        return self._opened
