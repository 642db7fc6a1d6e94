"""How tokenised texts lie in a batch: prefix then suffix, padded on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from pamctl.refusal import Refusal


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "prefix_length", "length"],
    meta_fields=["suffix_width"],
)
@dataclass(frozen=True)
class TextBatch:
    """Texts of one batch.

    Attributes:
        tokens: (b, t) int32: <bos> prefix "\\n" suffix <eos>, then padding.
        prefix_length: (b,) int32: tokens before the suffix, <bos> and "\\n" counted.
        length: (b,) int32: tokens before the padding.
        suffix_width: static; at least the longest suffix, <eos> counted.
    """

    tokens: jax.Array | np.ndarray
    prefix_length: jax.Array | np.ndarray
    length: jax.Array | np.ndarray
    suffix_width: int


def bucket(length: int) -> int:
    """Return the least of 8, 16, 24, 32, 48, 64, 96, 128, 192, ... that is not below `length`.

    Every width is a new compilation, so there are two to an octave.
    """
    step = max(8, 1 << max((length - 1).bit_length() - 2, 0))
    return -(-length // step) * step


def text_batch(
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    text_length: int,
    suffix_width: int | None = None,
    pad_token_id: int = 0,
) -> TextBatch:
    """Lay (prefix ids, suffix ids) pairs into a batch of `text_length` columns.

    Args:
        texts: one pair per example, as `Tokenizer.encode_prefix` and `encode_suffix` return them.
        text_length: columns of the batch.
        suffix_width: room for the longest suffix; None measures it on these texts. Give one number for
            all batches of a run, because every new number is a new compilation.

    Raises:
        Refusal: a text is longer than `text_length`, or its suffix than `suffix_width`.
    """
    if suffix_width is None:
        suffix_width = max((len(suffix) for _, suffix in texts), default=1)
    tokens = np.full((len(texts), text_length), pad_token_id, np.int32)
    for row, (prefix, suffix) in enumerate(texts):
        if len(prefix) + len(suffix) > text_length:
            raise Refusal(
                f"text {row} of the batch has {len(prefix)} prefix and {len(suffix)} suffix tokens, "
                f"more than the text length of {text_length}",
                "raise the task's text_length, or shorten the text",
            )
        if len(suffix) > suffix_width:
            raise Refusal(
                f"text {row} of the batch has {len(suffix)} suffix tokens, more than {suffix_width}",
                "raise the suffix width to that of the longest suffix",
            )
        tokens[row, : len(prefix) + len(suffix)] = [*prefix, *suffix]
    prefix_length = np.array([len(prefix) for prefix, _ in texts], np.int32)
    suffix_length = np.array([len(suffix) for _, suffix in texts], np.int32)
    return TextBatch(tokens, prefix_length, prefix_length + suffix_length, suffix_width)
