"""Whether texts are made of whole characters, as a tokenizer and every file that is written ask for."""

from collections.abc import Iterable

CUT = "has a text with half of a character in it (a lone surrogate)"


def whole_characters(texts: Iterable[str]) -> bool:
    """False where JSON escapes one half of a surrogate pair without the other, such as "\\ud800"."""
    joined = "".join(texts)
    return joined.isascii() or not any("\ud800" <= character <= "\udfff" for character in joined)
