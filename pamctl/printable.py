"""What files say, as it may be printed: it commands no terminal and misleads no reader."""

import unicodedata

LONGEST_WORD = 200
_KEPT = "\n\t"


def harmless(text: str) -> str:
    """A text with its controls, and what shows as nothing or turns text around, escaped; lines are kept."""
    if text.isprintable():
        return text
    return "".join(character if character in _KEPT else _shown(character) for character in text)


def printable(message: str) -> str:
    """A message on one line, harmless, each word of a fair length."""
    line = "".join(_shown(character) for character in " ".join(message.split("\n")))
    return " ".join(
        word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD // 2]}…{word[-LONGEST_WORD // 2 :]}"
        for word in line.split(" ")
    )


def _shown(character: str) -> str:
    unseen = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return ascii(character)[1:-1] if unseen else character
