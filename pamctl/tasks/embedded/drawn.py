"""A generated example before it becomes an `Example`: pixels, prompt and answer."""

from typing import NamedTuple

import numpy as np

from pamctl.tasks.embedded.draws import Draws


class Drawn(NamedTuple):
    """pixels: uint8 (32, 32, 3)."""

    pixels: np.ndarray
    prefix: str
    answer: str


def lettered_options(draws: Draws, right: str, wrong: list[str]) -> tuple[str, str]:
    """The text of three lettered options in random order, and the letter of the right one."""
    options = draws.sample([right, *wrong], 3)
    text = " ".join(f"({letter}) {option}" for letter, option in zip("abc", options, strict=True))
    return text, "abc"[options.index(right)]


def yes_no(truth: bool) -> str:
    """The answer to a yes-or-no question."""
    return "yes" if truth else "no"
