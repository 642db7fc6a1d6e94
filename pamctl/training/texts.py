"""How texts of examples become token ids: once for all visits, or anew for each; cut or refused if long."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pamctl.models.base import Base
from pamctl.models.text import TextBatch, bucket, text_batch
from pamctl.refusal import Refusal
from pamctl.tasks.task import Example, Text, Visit
from pamctl.training.epochs import Visits

OTHER_ORDER = 8
"""Tokens by which a prompt may be longer at another visit: options in another order are split otherwise."""

Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class TextLimit:
    """The most tokens of prefix, separator and answer together.

    Attributes:
        cuts: whether what is longer is cut, as big_vision does it, and not refused.
    """

    tokens: int
    cuts: bool = False

    def applied(self, example: Example, prefix: list[int], suffix: list[int]) -> Pair:
        """A text within the limit: the answer is cut, but for one token, then the prompt before its end.

        Raises:
            Refusal: it is too long, and nothing is cut.
        """
        if len(prefix) + len(suffix) <= self.tokens:
            return prefix, suffix
        if not self.cuts:
            raise Refusal(
                f"example {example.id} has {len(prefix)} prompt and {len(suffix)} answer tokens, "
                f"more than the task's text length of {self.tokens}",
                "shorten it, remove it, or give the task a larger text_length",
            )
        kept = [*prefix[: self.tokens - 2], prefix[-1]] if len(prefix) >= self.tokens else prefix
        return kept, suffix[: self.tokens - len(kept)]


class EncodedTexts(NamedTuple):
    """The texts of examples with their first answer, and how many of them, or of all, were cut."""

    batch: TextBatch
    cut: int


def encode_texts(
    base: Base, examples: Iterable[Example], limit: TextLimit, *, every: bool = False
) -> EncodedTexts:
    """Return the texts of all examples in one batch, as wide as the bucket of the longest.

    Args:
        every: take the longest of all answers into account, not of the first ones alone, and that a prompt
            may be a little longer at another visit.

    Raises:
        Refusal: an answer is empty, or a text is too long; the example is named by its id.
    """
    pairs, width, suffix_width, cut = [], 0, 0, 0
    for example in examples:
        trained = [answer for answer in example.answers if answer.strip()] if every else example.answers[:1]
        if not trained:
            raise Refusal(f"example {example.id} has an empty answer", "give it an answer, or remove it")
        whole = [_whole(base, example, Text(example.prefix, answer)) for answer in dict.fromkeys(trained)]
        encoded = [limit.applied(example, *pair) for pair in whole]
        cut += encoded != whole
        pairs.append(encoded[0])
        for prefix, suffix in encoded:
            width, suffix_width = max(width, len(prefix) + len(suffix)), max(suffix_width, len(suffix))
    if every:
        width = min(width + OTHER_ORDER, limit.tokens)
    return EncodedTexts(text_batch(pairs, bucket(width), bucket(suffix_width), base.config.pad_token_id), cut)


def texts_at(
    base: Base, examples: Sequence[Example], limit: TextLimit, visit: Visit, first: TextBatch, visits: Visits
) -> TextBatch:
    """Return the texts of some visits, as wide as those of all examples in `first`."""
    widest, suffix_width = first.tokens.shape[1], first.suffix_width
    within = TextLimit(min(limit.tokens, widest), limit.cuts)
    pairs = []
    for index, epoch in zip(visits.examples, visits.epochs, strict=True):
        example = examples[int(index)]
        whole = _whole(base, example, visit(example, visits.seed, int(epoch)))
        pairs.append(within.applied(example, *whole))
    return text_batch(pairs, widest, suffix_width, base.config.pad_token_id)


def _whole(base: Base, example: Example, text: Text) -> Pair:
    if not text.suffix.strip():
        raise Refusal(f"example {example.id} has an empty answer", "give it an answer, or remove it")
    return base.tokenizer.encode_prefix(text.prefix), base.tokenizer.encode_suffix(text.suffix)
