"""tiny-textvqa: read a word, sometimes on a coloured sign, after TextVQA."""

from pamctl.tasks.embedded.canvas import COLORS, LETTERS, finished, plain, put_plate, put_text
from pamctl.tasks.embedded.drawn import Drawn
from pamctl.tasks.embedded.draws import Draws

DESCRIPTION = "three letters, a third of them on a coloured sign; the answer is the text"
PROMPTS = (
    "what is written on the sign ?",
    "what word is on the sign ?",
    "what does it say ?",
    "what is the text ?",
)


def draw(draws: Draws) -> Drawn:
    """One text to read."""
    canvas = plain((30, 30, 30))
    text = "".join(draws.sample(LETTERS, 3))
    row = draws.below(4)
    ink = COLORS["white"]
    if draws.chance(35):
        put_plate(canvas, row, COLORS[draws.pick(("red", "blue", "green", "purple"))])
    put_text(canvas, text, row, ink, draws.below(2))
    return Drawn(finished(canvas, draws, 90), draws.pick(PROMPTS), text)
