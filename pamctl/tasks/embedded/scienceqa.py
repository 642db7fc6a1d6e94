"""tiny-scienceqa: charts and scenes with lettered options, after ScienceQA."""

from pamctl.tasks.embedded.canvas import CELL, COLORS, SIDE, finished, plain, put_bars
from pamctl.tasks.embedded.drawn import Drawn, lettered_options
from pamctl.tasks.embedded.draws import Draws
from pamctl.tasks.embedded.scene import put_things, scattered

DESCRIPTION = "bar charts on a light grid and scenes; three options, the answer is a letter"


def draw(draws: Draws) -> Drawn:
    """One question with three lettered options."""
    canvas = plain((150, 150, 150))
    canvas[:: CELL // 2] = 125
    canvas[:, :: CELL // 2] = 125
    if draws.chance(50):
        colors = draws.sample(tuple(COLORS), 4)
        heights = draws.sample(range(6, SIDE - 1, 6), 4)
        put_bars(canvas, heights, [COLORS[color] for color in colors])
        most = draws.chance(50)
        right = colors[heights.index(max(heights) if most else min(heights))]
        question = f"which bar is {'highest' if most else 'lowest'} ?"
        options, letter = lettered_options(draws, right, draws.sample([c for c in colors if c != right], 2))
    else:
        things = scattered(draws, 3)
        put_things(canvas, draws, things)
        asked = things[0]
        question = f"which color is the {asked.shape} ?"
        options, letter = lettered_options(draws, asked.color, [thing.color for thing in things[1:]])
    return Drawn(finished(canvas, draws, 6), f"question : {question} options : {options}", letter)
