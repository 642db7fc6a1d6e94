"""Texts to token ids and back, with a checkpoint's own tokenizer.json."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers

from pamctl.refusal import Refusal

_WAY_ON = "use the tokenizer.json that belongs to the checkpoint"
_IMAGE = "<image>"


class Tokenizer:
    """Prefix, separator and suffix are tokenised apart, as big_vision trains PaliGemma.

    Args:
        path: a tokenizer.json.
        embedding_rows: rows of the model's embedding; every id must be one of them.

    Raises:
        Refusal: the file is missing or broken, lacks <pad>, <eos> or <bos>, or has ids without a row.
    """

    def __init__(self, path: Path, embedding_rows: int) -> None:
        if not path.is_file():
            raise Refusal(f"{path.parent} has no {path.name}", _WAY_ON)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as fault:  # tokenizers raises bare Exception
            raise Refusal(f"{path} cannot be read by tokenizers: {fault}", _WAY_ON) from fault
        self.pad, self.eos, self.bos = (self._special(token, path) for token in ("<pad>", "<eos>", "<bos>"))
        # The last id: some tokenizers mark the start of a text, and the separator never starts one.
        self._separator = self._ids("\n")[-1:]
        self._image = self._tokenizer.token_to_id(_IMAGE)
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        if largest >= embedding_rows:
            raise Refusal(
                f"{path} has token id {largest}, the model's embedding {embedding_rows} rows: "
                "they do not belong together",
                _WAY_ON,
            )

    def encode_prefix(self, text: str) -> list[int]:
        """Return <bos>, the prompt, "\\n"; refuses a prompt that holds <image>, whose place is fixed."""
        ids = self._ids(text)
        if self._image is not None and self._image in ids:
            raise Refusal(
                f"the prefix {text!r} holds {_IMAGE}", f"leave {_IMAGE} out: images always come first"
            )
        return [self.bos, *ids, *self._separator]

    def encode_suffix(self, text: str) -> list[int]:
        """Return the answer and <eos>."""
        return [*self._ids(text), self.eos]

    def lengths(self, texts: Sequence[str]) -> list[int | None]:
        """How many tokens each text is by itself, None where there is no token for a part of it.

        Many at once take all cores.
        """
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [
            None if self._lacks(text, one) else len(one) for text, one in zip(texts, encoded, strict=True)
        ]

    @property
    def added(self) -> int:
        """How many tokens stand around prefix and suffix: <bos>, the separator and <eos>."""
        return len(self._separator) + len((self.bos, self.eos))

    def _lacks(self, text: str, encoded: tokenizers.Encoding) -> bool:
        """Whether a text holds <image>, or what the vocabulary has no token for."""
        return _IMAGE in text or (self._has_unknown and self._unknown in encoded.ids)

    @cached_property
    def _has_unknown(self) -> bool:
        """Whether there is text without tokens: a vocabulary with every byte has tokens for all."""
        self._unknown = self._tokenizer.token_to_id("<unk>")
        return self._unknown is not None and self._unknown in self._ids("\u4e2d\u2603\U0001f600\x07")

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to the first <eos>, without special tokens."""
        kept: list[int] = []
        for token in ids:
            if token == self.eos:
                break
            kept.append(int(token))
        return self._tokenizer.decode(kept, skip_special_tokens=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _special(self, token: str, path: Path) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise Refusal(f"{path} has no token {token}", _WAY_ON)
        return found
