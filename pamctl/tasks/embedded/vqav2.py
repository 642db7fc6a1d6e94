"""tiny-vqav2: counts, colours and yes-or-no on textured grounds, after VQAv2."""

from pamctl.tasks.embedded.canvas import COLORS, SHAPES, finished, put_shape, striped
from pamctl.tasks.embedded.drawn import Drawn, yes_no
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.embedded.scene import CELLS, put_things, scattered

DESCRIPTION = "textured grounds; counts as digits, colours, yes or no"


def draw(draws: Draws) -> Drawn:
    """One question about several things."""
    canvas = striped(draws)
    kind = draws.below(3)
    if kind == 0:
        count, shape = 1 + draws.below(4), draws.pick(tuple(SHAPES))
        for cell in draws.sample(CELLS, count):
            put_shape(canvas, draws, shape, cell, COLORS[draws.pick(tuple(COLORS))])
        return Drawn(finished(canvas, draws, 90), "how many things are in the picture ?", str(count))
    things = scattered(draws, 2)
    put_things(canvas, draws, things)
    asked = things[0]
    if kind == 1:
        return Drawn(finished(canvas, draws, 90), f"tell the color of the {asked.shape} .", asked.color)
    named = asked.color if draws.chance(50) else draws.pick(tuple(COLORS))
    answer = yes_no(named in [thing.color for thing in things])
    return Drawn(finished(canvas, draws, 90), f"is any thing {named} in the picture ?", answer)
