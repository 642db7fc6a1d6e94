"""tiny-vizwiz: one thing in a blurred, dark, noisy picture, sometimes nothing to see, after VizWiz."""

from pamctl.tasks.embedded.canvas import COLORS, SHAPES, blurred, finished, plain, put_large_shape
from pamctl.tasks.embedded.drawn import Drawn
from pamctl.tasks.embedded.draws import Draws

DESCRIPTION = "one thing, blurred, dark and noisy; a third of the pictures are unanswerable"


def draw(draws: Draws) -> Drawn:
    """One question about the only thing in the picture."""
    canvas = plain((20, 20, 20))
    shape, color = draws.pick(tuple(SHAPES)), draws.pick(tuple(COLORS))
    put_large_shape(canvas, draws, shape, COLORS[color])
    canvas = blurred(canvas) * 2 // 5
    kind = draws.below(3)
    prefix = ("what is this thing ?", "what color is this thing ?", "can you tell what shape this is ?")[kind]
    answer = (f"{color} {shape}", color, shape)[kind]
    if draws.chance(30):
        return Drawn(finished(canvas // 8, draws, 30), prefix, "unanswerable")
    return Drawn(finished(canvas, draws, 40), prefix, answer)
