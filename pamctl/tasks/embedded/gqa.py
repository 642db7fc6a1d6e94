"""tiny-gqa: attributes and relations in pastel scenes on a light ground, after GQA."""

from pamctl.tasks.embedded.canvas import COLORS, SHAPES, finished, pastel, plain
from pamctl.tasks.embedded.drawn import Drawn, yes_no
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.embedded.scene import put_things, scattered

DESCRIPTION = "pastel scenes on a light ground; colour, shape, side, existence"
PALETTE = {name: pastel(color) for name, color in COLORS.items()}


def draw(draws: Draws) -> Drawn:
    """One question about two or three things."""
    canvas = plain((110, 105, 100))
    things = scattered(draws, 2 + draws.below(2))
    put_things(canvas, draws, things, PALETTE)
    asked = things[0]
    kind = draws.below(4)
    if kind == 0:
        prefix, answer = f"what color does the {asked.shape} have ?", asked.color
    elif kind == 1:
        prefix, answer = f"what shape does the {asked.color} thing have ?", asked.shape
    elif kind == 2:
        prefix, answer = f"on which side is the {asked.shape} , left or right ?", asked.side
    else:
        named = asked.shape if draws.chance(50) else draws.pick(tuple(SHAPES))
        prefix = f"do you see a {named} ?"
        answer = yes_no(named in [thing.shape for thing in things])
    return Drawn(finished(canvas, draws, 70), prefix, answer)
